"""The errors a user of the library can see, all of them a :class:`PoolingError`, which is a ``ValueError``."""

from __future__ import annotations

from typing import Any

SHOWN = 200
"""Characters of a value that a message shows at most."""


class PoolingError(ValueError):
    """An argument is wrong. The message names it, its value and the remedy."""


class DTypeError(PoolingError, TypeError):
    """An array's dtype is one that pooling, or the backend named, can't do."""


class UnsupportedError(PoolingError, NotImplementedError):
    """The backend named can't do what is asked; the message is its reason."""


class UnknownBackendError(PoolingError, LookupError):
    """No backend has this name."""


class GradientError(PoolingError, AssertionError):
    """A gradient is wrong; the message names the worst cell."""


def printable(text: str) -> str:
    """`text` with whatever a terminal would not show, such as half a character, escaped.

    Examples
    --------
    >>> printable("a\\x1b[31mb")
    'a\\\\x1b[31mb'
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def shown(value: Any) -> str:
    """What a message shows of a value: its repr in one line, shortened where it is long; it never fails.

    Examples
    --------
    >>> shown((2, "x"))
    "(2, 'x')"
    >>> shown(10**5000)  # Python refuses to spell such numbers out
    'an int of about 5000 digits'
    """
    try:
        text = printable(" ".join(repr(value).split()))
    except Exception:  # an int of more than 4,300 digits, lists nested too deeply, or an object whose __repr__ fails
        if isinstance(value, int):
            return f"an int of about {int(value.bit_length() * 0.30103)} digits"
        return f"a {type(value).__name__} that can't be shown"
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 40]}... ({len(text)} characters)"
