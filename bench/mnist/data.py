"""MNIST, wherever it can be had: a folder, the user's cache, a mirror; offline, small digits that stand in for it.

1. The folder that ``POOLING_DATA_DIR`` or ``--data-dir`` names: any IDX files called as MNIST's are, .gz or not.
2. The user's cache, filled by downloading from the first mirror that answers. What was downloaded is held to the digests of
   MNIST's uncompressed bytes, whatever compressed them.
3. Without a network the 8 x 8 digits that come with scikit-learn, upscaled. The data set's `note` says so, and the page too.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.mnist.idx import IMAGES, LABELS, DataError, parse, read
from pooling.places import NoPlace, user_folder

FILES = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
"""MNIST's files with the SHA-256 of their uncompressed bytes."""

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)

TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Dataset:
    """Images as float32 in [0, 1] of shape (N, height, width, 1), labels as int64 of shape (N,).

    `name` is "MNIST" only for MNIST itself, by its digests; `note` says where the data comes from.
    """

    name: str
    note: str
    images: NDArray[np.float32]
    labels: NDArray[np.int64]
    test_images: NDArray[np.float32]
    test_labels: NDArray[np.int64]


def load(folder: str | Path | None = None) -> Dataset:
    """The data set in `folder`, or in the one that ``POOLING_DATA_DIR`` names; else MNIST; else digits.

    Raises
    ------
    DataError
        A folder was named and its files are missing or wrong. Without one there is always some data set.
    """
    named = folder or os.environ.get("POOLING_DATA_DIR")
    if named:
        return from_folder(Path(named).expanduser())
    try:
        return from_folder(download())
    except DataError as error:
        warnings.warn(f"no MNIST: {error}; going on with scikit-learn's digits", stacklevel=2)
        return digits()


def from_folder(folder: Path) -> Dataset:
    """The four IDX files in `folder`."""
    raw = {name: read(find(folder, name)) for name in FILES}
    arrays = [parse(data, IMAGES if "images" in name else LABELS, name) for name, data in raw.items()]
    images, labels, test_images, test_labels = arrays
    for part, x, t in (("train", images, labels), ("t10k", test_images, test_labels)):
        if len(x) != len(t):
            raise DataError(
                f"{folder}: {part} has {len(x)} images and {len(t)} labels: the files do not belong together"
            )
    if images.shape[1:] != test_images.shape[1:]:
        raise DataError(f"{folder}: train images are {images.shape[1:]} pixels, test images {test_images.shape[1:]}")
    genuine = all(hashlib.sha256(data).hexdigest() == FILES[name] for name, data in raw.items())
    name = "MNIST" if genuine else folder.name
    note = f"{len(images)} training and {len(test_images)} test images" + (
        "" if genuine else f" of the IDX files in {folder.name}, which are not MNIST's"
    )
    return Dataset(name, note, *prepared(images, labels), *prepared(test_images, test_labels))


def find(folder: Path, name: str) -> Path:
    """The file called `name`, compressed or not, also with a dot where some copies have one."""
    for stem in (name, name.replace("-idx", ".idx")):
        for suffix in ("", ".gz"):
            path = folder / (stem + suffix)
            if path.is_file():
                return path
    raise DataError(f"{folder} has no {name} or {name}.gz: it must hold {', '.join(FILES)}")


def prepared(images: NDArray[Any], labels: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    return np.multiply(images, 1 / 255, dtype=np.float32)[..., None], labels.astype(np.int64)


def download() -> Path:
    """MNIST's folder in the user's cache, downloaded first where it is not there."""
    import pooch
    import requests

    try:
        cache = Path(user_folder("cache"), "mnist")
    except NoPlace as error:
        raise DataError(f"{error}, so that nothing can be kept; set POOLING_DATA_DIR to a folder with MNIST") from None
    for name, digest in FILES.items():
        target = cache / name
        if target.is_file() and hashlib.sha256(target.read_bytes()).hexdigest() == digest:
            continue
        problems = []
        for mirror in MIRRORS:
            try:
                pooch.retrieve(
                    mirror + name + ".gz",
                    known_hash=None,  # compressed bytes differ from mirror to mirror; the uncompressed ones are checked
                    path=cache,
                    fname=name + ".gz",
                    processor=pooch.Decompress(name=name),
                    downloader=pooch.HTTPDownloader(timeout=TIMEOUT_S),
                )
            except (requests.RequestException, OSError, ValueError) as error:
                problems.append(f"{mirror}: {type(error).__name__}")
                continue
            found = hashlib.sha256(target.read_bytes()).hexdigest()
            if found == digest:
                break
            for spoiled in (target, cache / (name + ".gz")):
                spoiled.unlink(missing_ok=True)
            problems.append(f"{mirror}: other bytes than MNIST's")
        else:
            raise DataError(f"{name} could not be downloaded ({'; '.join(problems)}); set POOLING_DATA_DIR to a copy")
    return cache


def digits() -> Dataset:
    """scikit-learn's 1,797 digits of 8 x 8 pixels, three times as large in a frame of 2: 28 x 28 like MNIST's."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.pad(bunch.images.repeat(3, 1).repeat(3, 2), ((0, 0), (2, 2), (2, 2))) * (255 / 16)
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = images[order], bunch.target[order]
    n = 1500
    note = (
        f"not MNIST, which could not be had: scikit-learn's {len(images)} digits of 8 × 8 pixels, upscaled to 28 × 28"
    )
    return Dataset("digits", note, *prepared(images[:n], labels[:n]), *prepared(images[n:], labels[n:]))
