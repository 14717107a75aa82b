"""What compiled kernels rest on: Numba, the kernel cache on disk, buffers that are kept, and forks."""
