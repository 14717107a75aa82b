"""JAX: ``lax.reduce_window``, compiled by XLA for the CPU; its gradient, by ``jax.vjp``, is XLA's select-and-scatter.

XLA keeps x instead of indices and looks for the maxima again on the way back, so that its training forward pass is its inference
pass, and its training step the compiled whole of both. It pools in the layout of the arrays. Results are new arrays; handing
old ones over for reuse (donation) was tried and made no difference.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

import pooling
from bench.protocol.contenders import Array, Arrays, Calls, Contender
from bench.schema.workloads import Workload

_threads_of_client = 0


def why_not(workload: Workload) -> str | None:
    if workload.dtype not in ("float32", "float64"):
        return f"it competes in float32 and float64, not {workload.dtype}"
    if workload.op == "max" and any(dilation > 1 for dilation in workload.window.dilation):
        return "its gradient of max pooling has no dilation"
    return None


def start(threads: int) -> None:
    """Give XLA's CPU client this many threads; another number than before means a new client."""
    global _threads_of_client
    import jax
    from jax.extend.backend import clear_backends

    if threads == _threads_of_client:
        return
    before = {name: os.environ.get(name) for name in ("NPROC", "JAX_PLATFORMS")}
    os.environ["NPROC"] = str(threads)  # which the client reads when it makes its pool
    try:
        clear_backends()
        jax.config.update("jax_platforms", "cpu")
        jax.devices()
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
    _threads_of_client = threads


def bind(workload: Workload, arrays: Arrays) -> Calls:
    start(pooling.get_num_threads())
    import jax

    pool = function(workload)
    with jax.enable_x64(workload.dtype == "float64"):
        x, dy = jax.device_put(arrays.x), jax.device_put(arrays.dy)
        infer = jax.jit(pool).lower(x).compile()
        back = jax.jit(lambda x, dy: jax.vjp(pool, x)[1](dy)[0]).lower(x, dy).compile()
        both = jax.jit(lambda x, dy: (pool(x), jax.vjp(pool, x)[1](dy)[0])).lower(x, dy).compile()

    def forward() -> Array:
        return np.asarray(infer(x).block_until_ready())

    def step() -> tuple[Array, Array]:
        y, dx = jax.block_until_ready(both(x, dy))
        return np.asarray(y), np.asarray(dx)

    return {
        "forward": forward,
        "forward_train": forward,
        "backward": lambda: np.asarray(back(x, dy).block_until_ready()),
        "step": step,
    }


def function(workload: Workload) -> Any:
    """The pooling as a function of JAX arrays in the workload's layout."""
    from jax import lax

    window, last = workload.window, workload.data_format == "channels_last"

    def spread(values: Any, other: Any) -> tuple[Any, ...]:
        return (other, *values, other) if last else (other, other, *values)

    size, stride = spread(window.kernel_size, 1), spread(window.stride, 1)
    dilation = spread(window.dilation, 1)
    # A last window of ceil_mode reaches past the padding: pad as far as it does.
    reach = ((a.before, max(a.after, (a.out - 1) * a.stride + a.span - a.before - a.size)) for a in window.affine)
    padding = spread(tuple(reach), (0, 0))
    dtype = np.dtype(workload.dtype).type

    if workload.op == "max":

        def max_pool(x: Any) -> Any:
            return lax.reduce_window(x, dtype(-np.inf), lax.max, size, stride, padding, None, dilation)

        return max_pool

    counts = np.ones((), dtype)
    for axis in window.affine:
        counts = counts[..., None] * np.asarray(axis.counts(workload.count_include_pad), dtype)
    counts = counts[None, ..., None] if last else counts

    def mean(x: Any) -> Any:
        return lax.reduce_window(x, dtype(0), lax.add, size, stride, padding, None, dilation) / counts

    return mean


def contenders() -> tuple[Contender, ...]:
    return (
        Contender(
            "jax",
            "peer",
            "JAX: reduce_window and its vjp, jit by XLA for the CPU",
            "first",
            why_not,
            bind,
            exact=False,
            reuses_outputs=False,
            setup_s=3.0,
        ),
    )
