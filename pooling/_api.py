"""The public names, gathered here and loaded at once: by the package, when the first of them is asked for."""

from pooling.backends.base import Backend
from pooling.backends.registry import REGISTRY, get_backend, list_backends
from pooling.errors import DTypeError, GradientError, PoolingError, UnknownBackendError, UnsupportedError
from pooling.geometry.problem import Problem
from pooling.geometry.window import Window
from pooling.gradient_check import gradcheck
from pooling.operators import selection as _selection
from pooling.operators.adaptive import AdaptiveAvgPool, AdaptiveMaxPool, GlobalAvgPool, GlobalLpPool, GlobalMaxPool
from pooling.operators.base import Saved
from pooling.operators.fractional import FractionalMaxPool
from pooling.operators.functional import (
    adaptive_avg_pool,
    adaptive_max_pool,
    avg_pool,
    fractional_max_pool,
    global_avg_pool,
    global_lp_pool,
    global_max_pool,
    lp_pool,
    max_pool,
    max_unpool,
)
from pooling.operators.indices import (
    check_indices,
    indices_from_onnx,
    indices_from_tensorflow,
    indices_to_onnx,
    indices_to_tensorflow,
)
from pooling.operators.sliding import AvgPool, LpPool, MaxPool
from pooling.operators.unpool import MaxUnpool
from pooling.parallel.pool import get_num_threads, set_num_threads
from pooling.runtime.buffer_pool import get_buffer_bytes, set_buffer_bytes
from pooling.tuning import Choice, Layer, Recording, Tuned, WisdomWarning, pick, record, tune
from pooling.tuning import choose as _choose

__all__ = [
    "REGISTRY",
    "AdaptiveAvgPool",
    "AdaptiveMaxPool",
    "AvgPool",
    "Backend",
    "Choice",
    "DTypeError",
    "FractionalMaxPool",
    "GlobalAvgPool",
    "GlobalLpPool",
    "GlobalMaxPool",
    "GradientError",
    "Layer",
    "LpPool",
    "MaxPool",
    "MaxUnpool",
    "PoolingError",
    "Problem",
    "Recording",
    "Saved",
    "Tuned",
    "UnknownBackendError",
    "UnsupportedError",
    "Window",
    "WisdomWarning",
    "adaptive_avg_pool",
    "adaptive_max_pool",
    "avg_pool",
    "check_indices",
    "fractional_max_pool",
    "get_backend",
    "get_buffer_bytes",
    "get_num_threads",
    "global_avg_pool",
    "global_lp_pool",
    "global_max_pool",
    "gradcheck",
    "indices_from_onnx",
    "indices_from_tensorflow",
    "indices_to_onnx",
    "indices_to_tensorflow",
    "list_backends",
    "lp_pool",
    "max_pool",
    "max_unpool",
    "pick",
    "record",
    "set_buffer_bytes",
    "set_num_threads",
    "tune",
]

_selection.install(_choose)
