"""How commands end: by themselves, by Ctrl-C, or with a complaint instead of a traceback."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import typer
from rich.console import Console

import pooling
from bench.schema.results import ResultsError

INTERRUPTED = 130
"""Exit status of a command that Ctrl-C ended, as shells have it."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Make Ctrl-C a KeyboardInterrupt wherever it hits: within a callback from LLVM it gets lost, and another error follows."""
    asked = False

    def remember(signum: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        raise KeyboardInterrupt

    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # otherwise it is ignored, or somebody else's
    try:
        if usual:
            signal.signal(signal.SIGINT, remember)
        yield
    except Exception as error:
        if asked:
            raise KeyboardInterrupt from error
        raise
    finally:
        if usual:
            signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def complaints(console: Console) -> Iterator[None]:
    """Tell errors that a user can mend in one line, and leave with status 2."""
    from bench.training.idx import DataError

    try:
        yield
    except (DataError, ResultsError, pooling.PoolingError, FloatingPointError, OSError) as error:
        console.print(f"Error: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(2) from None
