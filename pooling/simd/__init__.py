"""Explicit vectors for Numba, and the pooling kernels written with them.

Layers, from the bottom up: `vector/` (operations on LLVM vectors, used as values in kernels), `memory/` (prefetch, streaming
stores, transposition), `plan/` (from a problem to a job), `kernels/` (one strategy per file or folder), and `planner.py`, which
chooses the strategy. The number of lanes follows from LLVM's host features; LLVM splits vectors that are wider than the
machine's, so kernels are correct on every CPU. Everything here imports Numba, and is imported at the first call that needs it.
"""
