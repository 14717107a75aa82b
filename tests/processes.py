"""Python in a process of its own, where warnings are errors."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

HANG_S = 600
"""Seconds that only what hangs takes: a busy machine is a hundred times as slow as an idle one, and compiles."""

STEP = """
import numpy as np, pooling, sys
x = np.arange(64, dtype=np.float32).reshape(1, 1, 8, 8)
def step(name):
    pool = pooling.MaxPool(2, backend=name)
    y, saved = pool.forward(x)
    return int(pool.backward(y, saved).sum())
"""
"""A training step that gives 576."""


def run_python(code: str, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `code`, with more options of Python and more environment; what became of it."""
    return subprocess.run(
        [sys.executable, "-W", "error", *options, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )


def unprivileged() -> tuple[str, ...]:
    """What to start a process with so that the modes of files hold for it; skips the test where there is nothing of that kind."""
    if sys.platform == "win32":
        pytest.skip("files have no modes")
    if os.geteuid():
        return ()
    if shutil.which("setpriv") is None:
        pytest.skip("root may read and search everything")
    return "setpriv", "--inh-caps=-all", "--bounding-set=-all"


def works(done: subprocess.CompletedProcess[str], said: str) -> None:
    """Hold a process to having said this, and nothing else, to nobody."""
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, said, "")
