"""The IDX format of MNIST and its relatives: a magic number that tells type and dimensions, the sizes, the bytes."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

IMAGES, LABELS = 0x00000803, 0x00000801
"""Magic numbers of unsigned bytes in three dimensions and in one."""


class DataError(ValueError):
    """A data file is missing or not what it should be; the message names it and the remedy."""


def read(path: Path) -> bytes:
    """The bytes of a file, uncompressed if it is a .gz."""
    try:
        raw = path.read_bytes()
        return gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} can't be read ({error}): get it again") from None


def parse(raw: bytes, magic: int, name: str) -> NDArray[np.uint8]:
    """The array in `raw`, which must hold images or labels as `magic` says.

    Raises
    ------
    DataError
        Not IDX, the other kind of file, or longer or shorter than its header says.
    """
    if len(raw) < 8:
        raise DataError(f"{name} has {len(raw)} bytes, not even a header: get it again")
    found = int.from_bytes(raw[:4], "big")
    if found != magic:
        what = {IMAGES: "images", LABELS: "labels"}
        raise DataError(
            f"{name} starts with {found:#010x}, expected {magic:#010x} ({what[magic]}): "
            + (f"it holds {what[found]}, so two files are swapped" if found in what else "it is no IDX file of bytes")
        )
    ndim = magic & 0xFF
    sizes = tuple(int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(ndim))
    data = np.frombuffer(raw, np.uint8, offset=4 + 4 * ndim)
    if data.size != int(np.prod(sizes)):
        kind = "truncated" if data.size < int(np.prod(sizes)) else "too long"
        raise DataError(
            f"{name} holds {data.size} bytes of data, its header says {'×'.join(map(str, sizes))}: it is {kind}"
        )
    return data.reshape(sizes)
