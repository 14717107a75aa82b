"""The frameworks that pool on CPUs, as contenders: proven and timed by exactly the code that proves and times our backends.

Each takes part in its best fair form: the threads everybody has, models built and compiled when a workload is bound and not
when it is timed, inputs shared without a copy, outputs written to memory that exists wherever its interface can, and the
training forward pass with the indices, or workspace, that its backward pass needs.

Whose threads keep spinning
---------------------------
OpenMP's workers (PyTorch, oneDNN) wait for more work by spinning for milliseconds after each call. That helps them when calls
follow each other, and takes a core from whoever has the next turn. So they keep it within a turn, and hand it over
afterwards: `settle_s` of such a contender is how long the next turn waits. :data:`SPIN` bounds how long that has to be; it must be in
the environment before the first library brings OpenMP in, which is why importing this package sets it. The spinning of ONNX
Runtime's pool stops when a run is done by its own option; those of OpenVINO and JAX last microseconds.

A framework is imported when its contender is first asked something, never before.
"""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from bench.contenders import Contender

SPIN = {"GOMP_SPINCOUNT": "30000"}
"""Rounds that an idle OpenMP worker spins: longer than the pause between two calls of a turn, shorter than `settle_s`."""

for _name, _value in SPIN.items():
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault(_name, _value)


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
