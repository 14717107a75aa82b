"""The frameworks that pool on CPUs, as contenders: proven and timed by exactly the code that proves and times our backends.

Each takes part in its best fair form: the threads everybody has, models built and compiled when a workload is bound and not when
it is timed, inputs shared without a copy, outputs written to memory that exists wherever its interface can, and the training
forward pass with the indices, or workspace, that its backward pass needs.

OpenMP's workers (PyTorch, oneDNN) and ONNX Runtime's spin-wait for more work. Between the calls of a turn that makes them fast:
oneDNN took 10 us on 64x50x8x8 and 42 us on 64x20x24x24, but 28 us with OMP_WAIT_POLICY=passive, and 226 us with
GOMP_SPINCOUNT=3000. So it stays as it is by default. But it goes on for some milliseconds after the last call, and occupies a
core of the next contender: right after PyTorch, `simd` took twice as long. So where frameworks take part a turn begins with
untimed calls that outlast it (bench.protocol.measure.SETTLE_S). ONNX Runtime's spinning outlasted more than that (PyTorch took
three times as long after it); it is set to stop when a call ends, which makes its own calls no slower.

It needs a machine with nothing else to do: where another process holds a core, a spinning team waits for the worker that has
none, 10 ms instead of 0.1, and comparisons favour contenders that do not spin. Such rows come out unstable; don't quote them.

A framework is imported when its contender is first asked something, never before.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from bench.protocol.contenders import Contender


@dataclass(frozen=True)
class Peer:
    """Where contenders come from.

    Parameters
    ----------
    module
        Of this package; its ``contenders()`` gives them.
    package
        What has to be installed, by the name pip knows.
    names
        The contenders' names.
    """

    module: str
    package: str
    names: tuple[str, ...]

    @property
    def version(self) -> str | None:
        """Of the installed package; None without it."""
        try:
            return version(self.package)
        except PackageNotFoundError:
            return None


PEERS = (
    Peer("pytorch", "torch", ("pytorch", "pytorch_channels_last", "pytorch_compiled")),
    Peer("jax_", "jax", ("jax",)),
    Peer("onnxruntime_", "onnxruntime", ("onnxruntime",)),
    Peer("openvino_", "openvino", ("openvino",)),
    Peer("onednn", "onednn-cpu-gomp", ("onednn",)),
)


def contenders() -> tuple[Contender, ...]:
    """The contenders whose packages are installed."""
    modules = (importlib.import_module(f"bench.peers.{peer.module}") for peer in PEERS if peer.version)
    return tuple(contender for module in modules for contender in module.contenders())


def missing() -> tuple[tuple[str, str], ...]:
    """Name and plain note of each contender that can't take part here."""
    return tuple(
        (name, f"{peer.package} is not installed; pip install {peer.package}")
        for peer in PEERS
        if not peer.version
        for name in peer.names
    )


def versions() -> dict[str, str]:
    """Of the packages that are installed, to go with results."""
    return {peer.package: peer.version for peer in PEERS if peer.version}
