"""Compiled kernels on disks that can't be written, can only be read, or are full: it costs time, and never an error."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.processes import STEP, run_python, works


@pytest.mark.parametrize("place", ["nowhere", "a file", "read-only"])
def test_a_cache_folder_that_cannot_be_written(place: str, tmp_path: Path) -> None:
    """numba#4032, numba#1771: decorating, or the first call, raised where no cache folder was writable."""
    folder = tmp_path / "cache"
    if place == "nowhere":
        folder = Path("/dev/null/nowhere")
    elif place == "a file":
        folder.write_text("not a folder")
    else:
        folder.mkdir(mode=0o555)  # to root it is as writable as any
    works(run_python(STEP + "print(step('numba_loops'))", POOLING_CACHE_DIR=str(folder)), "576")


def test_a_cache_that_can_only_be_read_is_read(tmp_path: Path) -> None:
    """An image with a filled cache, run by another user: everything was compiled anew in each process."""
    frozen = """
import errno, os, numba.core.caching, numba.core.event
access = os.access
os.access = lambda path, mode: not mode & os.W_OK and access(path, mode)
def refuse(*args): raise OSError(errno.EROFS, "read-only")
numba.core.caching.IndexDataCacheFile._open_for_write = refuse
numba.core.caching._CacheLocator.ensure_cache_path = refuse
events = numba.core.event.RecordingListener()
numba.core.event.register("numba:compile", events)
"""
    count = "print(step('simd'), len(events.buffer) > 0)"
    works(run_python(frozen + STEP + count, POOLING_CACHE_DIR=str(tmp_path)), "576 True")
    assert not list(tmp_path.rglob("*.nbc"))
    works(run_python(STEP + "print(step('simd'))", POOLING_CACHE_DIR=str(tmp_path)), "576")
    works(run_python(frozen + STEP + count, POOLING_CACHE_DIR=str(tmp_path)), "576 False")


@pytest.mark.skipif(sys.platform == "win32", reason="this system has no limits on files")
def test_a_full_disk(tmp_path: Path) -> None:
    """conjure-up#959, and many a cache: OSError, no space left on device. What was half written harms nobody later."""
    full = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))\n"
    places = {"POOLING_CACHE_DIR": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    works(run_python(full + STEP + "print(step('numba_loops'))", **places), "576")
    works(run_python(STEP + "print(step('numba_loops'))", **places), "576")
    assert any(path.stat().st_size > 2000 for path in tmp_path.rglob("*.nbc")), "nothing was cached when there was room"
