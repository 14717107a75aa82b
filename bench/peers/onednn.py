"""oneDNN itself, through its C API: the library that others call for pooling, without anything around it.

Descriptors, primitives and memory objects (over our arrays, plain NCHW or NHWC by strides) are made once; a timed call executes a
primitive and waits for the stream. Training keeps oneDNN's own workspace. Which code oneDNN chose, its JIT for this CPU's
instructions or a scalar fallback, is in :func:`implementation` and in the contender's note.
"""

from __future__ import annotations

import ctypes
import functools
from ctypes import POINTER, byref, c_char_p, c_int, c_int64, c_size_t, c_void_p
from dataclasses import dataclass, replace
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

import pooling
from bench.protocol.contenders import Array, Arrays, Calls, Contender
from bench.schema.workloads import Workload

PACKAGE = "onednn-cpu-gomp"

# Values of the C API's enumerations.
CPU, IN_ORDER, F32 = 1, 1, 3
TRAINING, INFERENCE = 64, 96
MAX, AVG_INCLUDE_PADDING, AVG_EXCLUDE_PADDING = 0x1FF, 0x2FF, 0x3FF
SRC, DST, WORKSPACE, DIFF_SRC, DIFF_DST = 1, 17, 64, 129, 145
QUERY_IMPLEMENTATION, QUERY_WORKSPACE = 8, 135
STATUS = ("success", "out of memory", "invalid arguments", "unimplemented", "last implementation", "runtime error")


class OneDNNError(RuntimeError):
    """oneDNN refused a call."""


class Argument(ctypes.Structure):
    _fields_ = (("argument", c_int), ("memory", c_void_p))


class Version(ctypes.Structure):
    _fields_ = (("major", c_int), ("minor", c_int), ("patch", c_int))


@functools.cache
def library() -> tuple[Any, Any]:
    """oneDNN, and the OpenMP runtime whose threads it uses."""
    path = next(file.locate() for file in distribution(PACKAGE).files or () if file.name == "libdnnl.so.3")
    try:
        openmp = ctypes.CDLL("libgomp.so.1", ctypes.RTLD_GLOBAL)
    except OSError:  # no such system library: PyTorch brings one
        torch = find_spec("torch")
        if torch is None or torch.origin is None:
            raise
        openmp = ctypes.CDLL(str(Path(torch.origin).parent / "lib" / "libgomp.so.1"), ctypes.RTLD_GLOBAL)
    dnnl = ctypes.CDLL(str(path))
    dnnl.dnnl_memory_desc_get_size.restype = c_size_t
    dnnl.dnnl_memory_desc_get_size.argtypes = (c_void_p,)
    dnnl.dnnl_primitive_desc_query_md.restype = c_void_p
    dnnl.dnnl_primitive_desc_query_md.argtypes = (c_void_p, c_int, c_int)
    dnnl.dnnl_version.restype = POINTER(Version)
    return dnnl, openmp


def call(name: str, *arguments: Any) -> None:
    """A function of the C API; OneDNNError unless it succeeds."""
    status = getattr(library()[0], name)(*arguments)
    if status:
        raise OneDNNError(f"{name}: {STATUS[status] if status < len(STATUS) else status}")


def handle(create: str, *arguments: Any) -> c_void_p:
    """The object that a ``*_create`` function makes. Objects live as long as the process: a workload makes a dozen."""
    made = c_void_p()
    call(create, byref(made), *arguments)
    return made


@functools.cache
def engine() -> tuple[c_void_p, c_void_p]:
    """The CPU engine and a stream on it."""
    cpu = handle("dnnl_engine_create", CPU, c_size_t(0))
    return cpu, handle("dnnl_stream_create", cpu, IN_ORDER)


def dims(values: Any) -> Any:
    entries = tuple(values)
    return (c_int64 * len(entries))(*entries)


def descriptor(array_shape: tuple[int, ...], channels_last: bool) -> c_void_p:
    """Memory descriptor (N, C, *spatial) of a C-contiguous array of this shape."""
    strides = [int(np.prod(array_shape[i + 1 :])) for i in range(len(array_shape))]
    order = [0, len(array_shape) - 1, *range(1, len(array_shape) - 1)] if channels_last else range(len(array_shape))
    shape, steps = dims(array_shape[i] for i in order), dims(strides[i] for i in order)
    return handle("dnnl_memory_desc_create_with_strides", len(array_shape), shape, F32, steps)


@dataclass(frozen=True)
class Descriptors:
    """The primitive descriptors of a workload, and the memory descriptors they are made of."""

    src: c_void_p
    dst: c_void_p
    inference: c_void_p
    training: c_void_p
    backward: c_void_p

    @classmethod
    def of(cls, workload: Workload) -> Descriptors:
        window, last = workload.window, workload.data_format == "channels_last"
        n, c, *_ = workload.shape
        out = (n, *window.output_size, c) if last else (n, c, *window.output_size)
        src, dst = descriptor(workload.array_shape, last), descriptor(out, last)
        kind = AVG_INCLUDE_PADDING if workload.count_include_pad else AVG_EXCLUDE_PADDING
        kind = MAX if workload.op == "max" else kind
        # It checks the output's size by its own formula: pad as far as a last window of ceil_mode reaches.
        after = (max(a.after, (a.out - 1) * a.stride + a.span - a.before - a.size) for a in window.affine)
        # Its dilation counts the cells left out.
        shape: tuple[Any, ...] = (dims(window.stride), dims(window.kernel_size), dims(d - 1 for d in window.dilation))
        shape = (*shape, dims(a.before for a in window.affine), dims(after))
        cpu, _ = engine()
        forward, backward = "dnnl_pooling_forward_primitive_desc_create", "dnnl_pooling_backward_primitive_desc_create"
        inference, training = (
            handle(forward, cpu, prop, kind, src, dst, *shape, None) for prop in (INFERENCE, TRAINING)
        )
        return cls(src, dst, inference, training, handle(backward, cpu, kind, src, dst, *shape, training, None))


def implementation(primitive_descriptor: c_void_p) -> str:
    """What oneDNN calls the code it chose, such as "jit:avx2" or "simple_nchw:any"."""
    name = c_char_p()
    call("dnnl_primitive_desc_query", primitive_descriptor, QUERY_IMPLEMENTATION, 0, byref(name))
    return (name.value or b"").decode()


def implementations(workload: Workload) -> dict[str, str]:
    """The code that oneDNN chooses for each direction of a workload."""
    made = Descriptors.of(workload)
    chosen = {"forward": made.inference, "forward_train": made.training, "backward": made.backward}
    return {direction: implementation(primitive) for direction, primitive in chosen.items()}


def why_not(workload: Workload) -> str | None:
    if workload.dtype != "float32":
        return f"it trains in float32, not {workload.dtype}"
    if workload.window.ndim > 3:
        return f"it pools over up to 3 dimensions, not {workload.window.ndim}"
    if (
        workload.op == "avg"
        and workload.count_include_pad
        and any((a.out - 1) * a.stride + a.span > a.before + a.size + a.after for a in workload.window.affine)
    ):
        return "it counts the cells of a window past the padding too"
    try:
        library()
    except OSError as error:
        return f"it can't be loaded ({error}); apt-get install libgomp1"
    try:
        Descriptors.of(workload)
    except OneDNNError as error:
        return f"it refuses: {error}"
    return None


def bind(workload: Workload, arrays: Arrays) -> Calls:
    dnnl, openmp = library()
    openmp.omp_set_num_threads(pooling.get_num_threads())
    cpu, stream = engine()
    made = Descriptors.of(workload)

    def memory(of: c_void_p, array: Array) -> c_void_p:
        return handle("dnnl_memory_create", of, cpu, c_void_p(array.ctypes.data))

    arguments = {
        SRC: memory(made.src, arrays.x),
        DST: memory(made.dst, arrays.y),
        DIFF_SRC: memory(made.src, arrays.dx),
        DIFF_DST: memory(made.dst, arrays.dy),
    }
    workspace = np.empty(0, np.uint8)
    kept: tuple[int, ...] = ()
    if workload.op == "max":
        of = c_void_p(dnnl.dnnl_primitive_desc_query_md(made.training, QUERY_WORKSPACE, 0))
        workspace = np.empty(dnnl.dnnl_memory_desc_get_size(of), np.uint8)
        arguments[WORKSPACE] = memory(of, workspace)
        kept = (WORKSPACE,)

    def prepared(primitive_descriptor: c_void_p, *names: int) -> tuple[c_void_p, c_void_p, int, Any]:
        primitive = handle("dnnl_primitive_create", primitive_descriptor)
        given = (Argument * len(names))(*(Argument(name, arguments[name]) for name in names))
        return primitive, stream, len(names), given

    inference = prepared(made.inference, SRC, DST)
    training = prepared(made.training, SRC, DST, *kept)
    back = prepared(made.backward, DIFF_DST, DIFF_SRC, *kept)
    execute, wait = dnnl.dnnl_primitive_execute, dnnl.dnnl_stream_wait

    def run(*primitives: tuple[Any, ...], alive: Any = (arrays, workspace)) -> None:
        for primitive in primitives:
            if execute(*primitive) or wait(stream):
                raise OneDNNError("dnnl_primitive_execute failed")

    run(training)
    return {
        "forward": lambda: run(inference),
        "forward_train": lambda: run(training),
        "backward": lambda: run(back),
        "step": lambda: run(training, back),
    }


def contenders() -> tuple[Contender, ...]:
    return (Contender("onednn", "peer", note(), "first", why_not, bind, exact=False),)


def note() -> str:
    """Its version, and the code it chooses for 2x2 windows in each layout."""
    example = Workload("example", "", (1, 64, 8, 8), 2)
    try:
        version = library()[0].dnnl_version().contents
        chosen = []
        for layout, workload in (("NHWC", replace(example, data_format="channels_last")), ("NCHW", example)):
            by_direction = implementations(workload)
            chosen.append(f"{layout}: {by_direction['forward_train']}, {by_direction['backward']}")
        return f"oneDNN {version.major}.{version.minor} by its C API ({'; '.join(chosen)})"
    except (OSError, OneDNNError) as error:
        return f"oneDNN by its C API ({error})"
