"""When kernels are compiled for the size of the arrays.

Two things depend on it: the length of short rows (`kernels/packed_rows/`), and windows that are fitted to the array, as in
adaptive and global pooling. Such a kernel takes a second or two to compile, and machine code is never freed. So kernels that
serve every size run until one size has been seen `CALLS` times; at most `MOST` sizes are ever compiled for.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

CALLS = 200
"""Calls with arrays of one size, each pass counted, after which kernels are compiled for it."""

COUNTED = 32
"""Sizes, those used last, of which calls are counted: more than a network has, fewer than a program has whose sizes change."""

MOST = 16
"""Specializations made because of the number of calls; :func:`specialize` makes more."""

_calls: OrderedDict[Hashable, int] = OrderedDict()
_specialized: set[Hashable] = set()


def is_specialized(what: Hashable, size: Hashable) -> bool:
    """Whether kernels are compiled for this (`planner.special_for`) from now on. Counts a call with arrays of this size."""
    if what in _specialized:
        return True
    calls = _calls.pop(size, 0) + 1
    if calls > CALLS and len(_specialized) < MOST:
        specialize(what)
        return True
    _calls[size] = calls
    while len(_calls) > COUNTED:
        _calls.popitem(last=False)
    return False


def specialize(what: Hashable) -> None:
    """Compile for this from now on."""
    _specialized.add(what)
