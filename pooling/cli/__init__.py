"""The command line: what this machine has, which backend is the fastest for an array, are the gradients right.

Each command prints a table for people or, with ``--json``, one JSON document for scripts. A mistake in what was asked is one
line on stderr and exit code 2; exit code 1 is left to answers, such as a wrong gradient; Ctrl-C ends with 130.
"""

import io
import sys

from pooling.cli import check, info, pick, tune, wisdom
from pooling.cli.app import app

__all__ = ["app", "check", "info", "main", "pick", "tune", "wisdom"]


def main() -> None:
    """What the console script calls."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # no code page of Windows has the bars
    app(prog_name="pooling")
