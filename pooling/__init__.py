"""Pooling and its backpropagation on the CPU, from Python: every known trick, one interface.

>>> import numpy as np, pooling
>>> pool = pooling.MaxPool(2)
>>> y, saved = pool.forward(np.ones((1, 1, 4, 4), np.float32))
>>> dx = pool.backward(y, saved)
>>> float(dx.sum())
4.0

Importing this package loads NumPy and nothing else: Numba, and what the tuner's store needs, come with the first call
that uses them.
"""

# `backend`, `backends`, `gradcheck` and `tune` are functions here and modules below. Python binds a submodule to its package only
# when it loads it, so the functions, bound after that, stay; `from pooling.backends import ...` finds the module anyway.
from pooling.backend import Backend, Problem
from pooling.backends import REGISTRY, backend, backends
from pooling.errors import DTypeError, GradientError, PoolingError, UnknownBackendError, UnsupportedError
from pooling.functional import avg_pool, max_pool
from pooling.gradcheck import gradcheck
from pooling.memory import get_buffer_bytes, set_buffer_bytes
from pooling.operators import AvgPool, MaxPool, Saved
from pooling.threads import get_num_threads, set_num_threads
from pooling.tune import Choice, Layer, Recording, Tuned, WisdomWarning, pick, record, tune
from pooling.window import Window

__version__ = "0.1.0"

__all__ = [
    "REGISTRY",
    "AvgPool",
    "Backend",
    "Choice",
    "DTypeError",
    "GradientError",
    "Layer",
    "MaxPool",
    "PoolingError",
    "Problem",
    "Recording",
    "Saved",
    "Tuned",
    "UnknownBackendError",
    "UnsupportedError",
    "Window",
    "WisdomWarning",
    "avg_pool",
    "backend",
    "backends",
    "get_buffer_bytes",
    "get_num_threads",
    "gradcheck",
    "max_pool",
    "pick",
    "record",
    "set_buffer_bytes",
    "set_num_threads",
    "tune",
]
