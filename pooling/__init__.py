"""Pooling and its backpropagation on the CPU, from Python: every known trick, one interface.

>>> import numpy as np, pooling
>>> pool = pooling.MaxPool(2)
>>> y, saved = pool.forward(np.ones((1, 1, 4, 4), np.float32))
>>> dx = pool.backward(y, saved)
>>> float(dx.sum())
4.0

Importing this package loads nothing yet: its modules and NumPy come with the first name that is used, Numba, and what the
tuner's store needs, with the first call that uses them.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pooling._api import *  # noqa: F403

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name.startswith("__") and name != "__all__":  # asked by inspection, of every module
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    public = import_module("pooling._api")  # `from pooling import` would ask this function again
    globals().update({each: getattr(public, each) for each in ("__all__", *public.__all__)})
    if name not in globals():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name, obj=sys.modules[__name__])
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__getattr__("__all__")})
