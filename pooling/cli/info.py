"""``pooling info``: what this machine has."""

from __future__ import annotations

import json
import os
from typing import Any

import typer

import pooling
from pooling.cli.app import Json, app, table

VECTOR_FEATURES = ("sse", "ssse", "avx", "fma", "f16c", "neon", "sve", "asimd")
"""How the names of vector instruction sets begin, among all that LLVM tells about a CPU."""


@app.command()
def info(as_json: Json = False) -> None:
    """Version, backends, threads, cache folder, CPU."""
    import llvmlite.binding as llvm

    from pooling.jit import cache_folder
    from pooling.simd.vectors import vector_bytes

    cache = cache_folder()
    writable = cache is not None and os.access(cache, os.W_OK)
    features = sorted(f for f, on in llvm.get_host_cpu_features().items() if on and f.startswith(VECTOR_FEATURES))
    facts: dict[str, Any] = {
        "version": pooling.__version__,
        "threads": pooling.get_num_threads(),
        "cache_folder": None if cache is None else str(cache),
        "cache_writable": writable,
        "cpu": llvm.get_host_cpu_name(),
        "vector_bytes": vector_bytes(),
        "vector_features": features,
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
    typer.echo(f"threads        {facts['threads']}")
    typer.echo(f"kernel cache   {cache or 'nowhere: no folder can be made, each process compiles anew'}")
    if cache and not writable:
        typer.echo("               which can't be written: each process compiles anew what is not there")
    typer.echo(f"CPU            {facts['cpu']}, vectors of {facts['vector_bytes']} bytes ({' '.join(features)})")
    typer.echo()
    rows = [(b["name"], " ".join(b["ops"]), " ".join(b["ties"]), b["note"]) for b in facts["backends"]]
    for line in table([("backend", "ops", "ties", "note"), *rows]):
        typer.echo(line)
