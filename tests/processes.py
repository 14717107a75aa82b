"""Python in a process of its own, where warnings are errors."""

from __future__ import annotations

import os
import subprocess
import sys


def run_python(code: str, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `code`, with more options of Python and more environment; what became of it."""
    return subprocess.run(
        [sys.executable, "-W", "error", *options, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def works(done: subprocess.CompletedProcess[str], said: str) -> None:
    """Hold a process to having said this, and nothing else, to nobody."""
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, said, "")
