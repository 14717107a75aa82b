"""The public names, gathered here and loaded at once: by the package, when the first of them is asked for."""

from pooling.adaptive import AdaptiveAvgPool, AdaptiveMaxPool, GlobalAvgPool, GlobalLpPool, GlobalMaxPool
from pooling.backend import Backend, Problem
from pooling.backends import REGISTRY, backend, backends
from pooling.errors import DTypeError, GradientError, PoolingError, UnknownBackendError, UnsupportedError
from pooling.fractional import FractionalMaxPool
from pooling.functional import (
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
from pooling.gradcheck import gradcheck
from pooling.indices import (
    check_indices,
    indices_from_onnx,
    indices_from_tensorflow,
    indices_to_onnx,
    indices_to_tensorflow,
)
from pooling.memory import get_buffer_bytes, set_buffer_bytes
from pooling.operators import Saved
from pooling.sliding import AvgPool, LpPool, MaxPool
from pooling.threads import get_num_threads, set_num_threads
from pooling.tune import Choice, Layer, Recording, Tuned, WisdomWarning, pick, record, tune
from pooling.unpool import MaxUnpool
from pooling.window import Window

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
    "backend",
    "backends",
    "check_indices",
    "fractional_max_pool",
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
    "lp_pool",
    "max_pool",
    "max_unpool",
    "pick",
    "record",
    "set_buffer_bytes",
    "set_num_threads",
    "tune",
]
