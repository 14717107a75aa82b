"""``pooling info``: what this machine has."""

from __future__ import annotations

import json
import os
from typing import Any

import typer

import pooling
from pooling.cli.app import Json, app, table
from pooling.parallel.quota import cpu_quota
from pooling.runtime.availability import imports, missing, why_not_compiled
from pooling.tuning.store import location, no_location

VECTOR_FEATURES = ("sse", "ssse", "avx", "fma", "f16c", "neon", "sve", "asimd")
"""How the names of vector instruction sets begin, among the features that LLVM lists for a CPU."""


@app.command()
def info(as_json: Json = False) -> None:
    """Version, backends, threads, where files are kept, CPU."""
    without = None if imports() else missing()
    facts: dict[str, Any] = {
        "version": pooling.__version__,
        "threads": pooling.get_num_threads(),
        "cpu_quota": cpu_quota(),
        **({"cache_folder": None, "cache_writable": False, "cache_problem": without} if without else _cache()),
        **_wisdom(),
        "numba": without or why_not_compiled(),
        **({"cpu": None, "vector_bytes": None, "vector_features": []} if without else _cpu()),
        "backends": [
            {
                "name": b.name,
                "note": b.note,
                "ops": list(b.ops),
                "ties": list(b.ties),
                "reference_only": b.reference_only,
            }
            for b in pooling.REGISTRY.values()
        ],
    }
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    typer.echo(f"pooling        {facts['version']}")
    quota = f", where a container's quota allows {facts['cpu_quota']}" if facts["cpu_quota"] else ""
    typer.echo(f"threads        {facts['threads']}{quota}")
    typer.echo(f"kernel cache   {facts['cache_folder'] or 'nowhere, each process compiles anew'}")
    if facts["cache_problem"]:
        typer.echo(f"               {facts['cache_problem']}")
    typer.echo(f"wisdom         {facts['wisdom_file'] or 'nowhere, what is measured is forgotten when a process ends'}")
    if facts["wisdom_problem"]:
        typer.echo(f"               {facts['wisdom_problem']}")
    if facts["numba"]:
        typer.echo(f"Numba          {facts['numba']}")
    if facts["cpu"]:
        features = " ".join(facts["vector_features"])
        typer.echo(f"CPU            {facts['cpu']}, vectors of {facts['vector_bytes']} bytes ({features})")
    typer.echo()
    rows = [(b["name"], " ".join(b["ops"]), " ".join(b["ties"]), b["note"]) for b in facts["backends"]]
    for line in table([("backend", "ops", "ties", "note"), *rows]):
        typer.echo(line)


def _cache() -> dict[str, Any]:
    from pooling.runtime.kernel_cache import cache_folder, problem

    folder = cache_folder()
    return {
        "cache_folder": None if folder is None else str(folder),
        "cache_writable": folder is not None and os.access(folder, os.W_OK),
        "cache_problem": problem(),
    }


def _wisdom() -> dict[str, Any]:
    path, reason = location(), no_location()
    return {"wisdom_file": None if path is None else str(path), "wisdom_problem": reason}


def _cpu() -> dict[str, Any]:
    import llvmlite.binding as llvm

    from pooling.simd.vector.ops import vector_bytes

    features = sorted(f for f, on in llvm.get_host_cpu_features().items() if on and f.startswith(VECTOR_FEATURES))
    return {"cpu": llvm.get_host_cpu_name(), "vector_bytes": vector_bytes(), "vector_features": features}
