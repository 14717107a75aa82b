"""Explicit vectors for Numba, and the pooling kernels composed from them.

`vectors.py` is the vocabulary: a few operations on LLVM vectors that kernels, ordinary Python functions, use as values.
Lanes are chosen by what LLVM says of this CPU; wider vectors than the machine's are legal, LLVM splits them, so the
kernels are correct everywhere. `planes.py` moves planes in and out of lanes, `strides.py` what lies apart in a row,
`packed.py` what lies in several, and `masks.py` some lanes of a vector; the other files hold the kernels, and
`tickets.py` lets threads share them. Everything here imports Numba, and is imported at the first call that needs it.
"""
