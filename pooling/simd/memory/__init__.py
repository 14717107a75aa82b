"""How kernels move memory: software prefetch, streaming stores, transposition."""
