"""MNIST, wherever it can be had: a folder, the user's cache, a mirror; offline, small digits that stand in for it.

1. The folder that ``POOLING_DATA_DIR`` or ``--data-dir`` names: any IDX files called as MNIST's are, .gz or not.
2. The user's cache, filled by downloading from the first mirror whose answer holds MNIST's uncompressed bytes, by their
   digests, whatever compressed them. A file gets its name there when it is whole.
3. Without a network the 8 x 8 digits that come with scikit-learn, upscaled. The data set's `note` says so, and the page too.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.training.fetch import FetchError, fetch
from bench.training.idx import IMAGES, LABELS, DataError, parse, read, unpacked
from pooling.errors import shown
from pooling.runtime.user_dirs import NoPlace, user_folder

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
"""How long a mirror may be silent."""

TOTAL_S = 300.0
"""How long it may take for a file."""

LARGEST = 1 << 26
"""Bytes that a file of MNIST may have, compressed or not; the largest has 47 MB."""


ANOTHER = "name another folder with --data-dir or POOLING_DATA_DIR"


@dataclass(frozen=True)
class Dataset:
    """Images as float32 in [0, 1] of shape (N, height, width, 1), labels as int64 from 0 of shape (N,).

    `name` is "MNIST" only for MNIST itself, by its digests; `note` says where the data comes from.
    """

    name: str
    note: str
    images: NDArray[np.float32]
    labels: NDArray[np.int64]
    test_images: NDArray[np.float32]
    test_labels: NDArray[np.int64]

    @property
    def classes(self) -> int:
        """How many a network has to tell apart."""
        return 1 + max(int(labels.max(initial=0)) for labels in (self.labels, self.test_labels))


def load(folder: str | Path | None = None) -> Dataset:
    """The data set in `folder`, or in the one that ``POOLING_DATA_DIR`` names; else MNIST; else digits.

    Raises
    ------
    DataError
        A folder was named and its files are missing or wrong. Without one there is always some data set.
    """
    chosen = named(folder)
    if chosen:
        return from_folder(chosen)
    try:
        return from_folder(download())
    except DataError as error:
        warnings.warn(f"no MNIST: {error}; going on with scikit-learn's digits", stacklevel=2)
        return digits()


def named(folder: str | Path | None = None) -> Path | None:
    """The whole path of `folder`, or of the one that ``POOLING_DATA_DIR`` names; None where neither is."""
    given = folder or os.environ.get("POOLING_DATA_DIR")
    if not given:
        return None
    try:
        return Path(os.path.abspath(Path(given).expanduser()))
    except RuntimeError:
        raise DataError(f"{given}: whose home directory ~ is isn't known; give the whole path") from None
    except OSError:
        raise DataError(f"{given} is relative to a folder that is gone: {ANOTHER}, by its whole path") from None


def from_folder(folder: Path) -> Dataset:
    """The four IDX files in `folder`. Labels that begin with 1, as EMNIST's letters, are counted from 0."""
    paths = {name: find(folder, name) for name in FILES}
    raw = {name: read(path) for name, path in paths.items()}
    arrays = [parse(data, IMAGES if "images" in name else LABELS, str(paths[name])) for name, data in raw.items()]
    images, labels, test_images, test_labels = arrays
    for part, x, t in (("train", images, labels), ("t10k", test_images, test_labels)):
        if len(x) != len(t):
            raise DataError(
                f"{folder}: {part} has {len(x)} images and {len(t)} labels: the files do not belong together, "
                "get them from one place"
            )
    if images.shape[1:] != test_images.shape[1:]:
        ours, theirs = ("×".join(map(str, x.shape[1:])) for x in (images, test_images))
        raise DataError(
            f"{folder}: train images have {ours} pixels, test images {theirs}: get all four files from one place"
        )
    genuine = all(hashlib.sha256(data).hexdigest() == FILES[name] for name, data in raw.items())
    own = folder.name or str(folder)
    note = f"{len(images)} training and {len(test_images)} test images" + (
        "" if genuine else f" of the IDX files in {own}, which are not MNIST's"
    )
    first = min(labels.min(), test_labels.min())
    train, test = prepared(images, labels - first), prepared(test_images, test_labels - first)
    return Dataset("MNIST" if genuine else own, note, *train, *test)


def find(folder: Path, name: str) -> Path:
    """The file called `name`, compressed or not, also with a dot where some copies have one."""
    for stem in (name, name.replace("-idx", ".idx")):
        for suffix in ("", ".gz"):
            path = folder / (stem + suffix)
            try:
                if path.is_file():
                    return path
            except OSError as error:  # the folder can't be searched, or no path may be as long
                raise DataError(f"{shown(str(folder))} can't be read ({error.strerror}): {ANOTHER}") from None
    raise DataError(f"{folder} has no {name} or {name}.gz: it must hold {', '.join(FILES)} under these names")


def prepared(images: NDArray[Any], labels: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    return np.multiply(images, 1 / 255, dtype=np.float32)[..., None], labels.astype(np.int64)


def download() -> Path:
    """MNIST's folder in the user's cache, downloaded first where it is not there.

    Raises
    ------
    DataError
        No mirror has a file, or there is no cache that can be written.
    """
    try:
        cache = Path(user_folder("cache"), "mnist")
    except NoPlace as error:
        raise DataError(f"{error}, so that nothing can be kept; set POOLING_DATA_DIR to a folder with MNIST") from None
    mirrors = list(MIRRORS)
    for name, digest in FILES.items():
        target = cache / name
        if digest_of(target) == digest:
            continue
        try:
            cache.mkdir(parents=True, exist_ok=True)
            write_whole(target, from_mirrors(mirrors, name, digest))
        except OSError as error:
            raise DataError(f"{cache} can't be written ({error}); set POOLING_DATA_DIR to a copy of MNIST") from None
    return cache


def digest_of(path: Path) -> str | None:
    """The SHA-256 of a file; None of what is no file, or can't be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


def from_mirrors(mirrors: list[str], name: str, digest: str) -> bytes:
    """The uncompressed bytes of a file from the first mirror that has them, which is put first for the files to come."""
    problems = []
    for mirror in list(mirrors):
        try:
            sent = fetch(mirror + name + ".gz", most=LARGEST, silence_s=TIMEOUT_S, total_s=TOTAL_S)
            raw = unpacked(sent, most=LARGEST)
        except FetchError as error:
            problems.append(f"{mirror}: {error}")
            continue
        except (OSError, EOFError, ValueError, zlib.error):
            problems.append(f"{mirror}: no sound gzip")
            continue
        if hashlib.sha256(raw).hexdigest() == digest:
            mirrors.remove(mirror)
            mirrors.insert(0, mirror)
            return raw
        problems.append(f"{mirror}: other bytes than MNIST's")
    raise DataError(f"{name} could not be downloaded ({'; '.join(problems)}); set POOLING_DATA_DIR to a copy")


def write_whole(target: Path, data: bytes) -> None:
    """Write beside `target` under a name that is nobody else's, and rename: others see all of it, or nothing."""
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, target)
    finally:
        Path(temporary).unlink(missing_ok=True)


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
