"""Four small IDX files, as a data set's folder has them."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest


def idx(array: Any) -> bytes:
    """An array of bytes in IDX."""
    magic = (0x0800 | array.ndim).to_bytes(4, "big")
    sizes = b"".join(n.to_bytes(4, "big") for n in array.shape)
    return bytes(magic + sizes + array.astype(np.uint8).tobytes())


def write_folder(folder: Path, images: int, labels: Any, shape: tuple[int, int] = (28, 28)) -> Path:
    """The four files of random images, some compressed; `labels` are dealt to them in turn, a third of the images for tests."""
    random = np.random.default_rng(0)
    for part, n in (("train", images), ("t10k", max(images // 3, 1))):
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx(random.integers(0, 256, (n, *shape))))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.resize(labels, n))))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four small files, some compressed."""
    random = np.random.default_rng(0)
    for part, n in (("train", 30), ("t10k", 10)):
        (tmp_path / f"{part}-images-idx3-ubyte").write_bytes(idx(random.integers(0, 256, (n, 28, 28))))
        (tmp_path / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(random.integers(0, 10, n))))
    return tmp_path
