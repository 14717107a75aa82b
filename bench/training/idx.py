"""The IDX format of MNIST and its relatives: a magic number that tells type and dimensions, the sizes, the bytes."""

from __future__ import annotations

import gzip
import math
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

IMAGES, LABELS = 0x00000803, 0x00000801
"""Magic numbers of unsigned bytes in three dimensions and in one."""

KINDS = {IMAGES: "images", LABELS: "labels"}

TYPES = {0x08: "uint8", 0x09: "int8", 0x0B: "int16", 0x0C: "int32", 0x0D: "float32", 0x0E: "float64"}
"""What the third byte of a magic number says of the elements."""

STRANGERS = {
    b"<": "it looks like a web page: download the file itself",
    b"PK\x03\x04": "it is a ZIP archive: unpack it",
    b"BZh": "it is compressed with bzip2: unpack it",
    b"\xfd7zXZ": "it is compressed with xz: unpack it",
    b"\x93NUMPY": "it is an array of NumPy's: write it in IDX",
    b"version https://git-lfs": "it is a pointer of Git LFS: run git lfs pull",
}
"""First bytes of what often has a data file's name, and what to do."""

GZIP = b"\x1f\x8b"

LARGEST = 1 << 32
"""Bytes that a file may hold when uncompressed; EMNIST's largest has 550 MB."""


class DataError(ValueError):
    """A data file is missing or not what it should be; the message names it and the remedy."""


def read(path: Path) -> bytes:
    """The bytes of a file, uncompressed if they are gzip's, whatever its name ends in.

    Raises
    ------
    DataError
        It can't be read, or what is compressed is damaged or larger than LARGEST.
    """
    try:
        raw = path.read_bytes()
        return unpacked(raw, LARGEST) if path.suffix == ".gz" or raw.startswith(GZIP) else raw
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{path} can't be read ({error}): get it again") from None


def unpacked(raw: bytes, most: int) -> bytes:
    """What gzip made `raw` of, also where it was compressed twice; IDX data as they are.

    Raises
    ------
    OSError, EOFError, ValueError, zlib.error
        It is neither, is damaged, or holds more than `most` bytes.
    """
    for _ in range(2):
        if raw.startswith(b"\0\0"):  # as every IDX file, and nothing that is compressed
            break
        with gzip.GzipFile(fileobj=BytesIO(raw)) as file:
            raw = file.read(most + 1)
        if len(raw) > most:
            raise ValueError(f"it holds more than {most:,} bytes")
        if not raw.startswith(GZIP):
            break
    return raw


def parse(raw: bytes, magic: int, name: str) -> NDArray[np.uint8]:
    """The array in `raw`, which must hold images or labels as `magic` says.

    Raises
    ------
    DataError
        Not IDX, another kind of file, without data, or longer or shorter than its header says.
    """
    ndim = magic & 0xFF
    header = 4 + 4 * ndim
    if len(raw) >= 4:
        check_magic(raw, magic, name)
    if len(raw) < header:
        raise DataError(f"{name} has {len(raw)} bytes, its header alone takes {header}: it is truncated, get it again")
    sizes = tuple(int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(ndim))
    spelled, count = "×".join(map(str, sizes)), math.prod(sizes)  # in Python's integers, which don't overflow
    found = len(raw) - header
    if found != count:
        raise DataError(
            f"{name} holds {found} bytes of data, its header says {spelled}: "
            f"it is {'truncated' if found < count else 'too long'}, get it again"
        )
    if not count:
        raise DataError(f"{name} holds no {KINDS[magic]} ({spelled}): get a file that has some")
    return np.frombuffer(raw, np.uint8, offset=header).reshape(sizes)


def check_magic(raw: bytes, magic: int, name: str) -> None:
    """DataError, with what the file seems to be, unless it starts with `magic`."""
    found = int.from_bytes(raw[:4], "big")
    if found == magic:
        return
    dtype, ndim = TYPES.get(found >> 8), found & 0xFF
    if found in KINDS:
        why = f"it holds {KINDS[found]}, so two files are swapped"
    elif dtype is not None:
        why = f"it holds {dtype} in {ndim} dimensions; convert it to uint8 in {magic & 0xFF}"
    else:
        whose = (remedy for start, remedy in STRANGERS.items() if raw.lstrip().startswith(start))
        why = next(whose, "it is no IDX file of bytes, get it again")
    raise DataError(f"{name} starts with {found:#010x}, expected {magic:#010x} ({KINDS[magic]}): {why}")
