"""The dtypes that are pooled, and in which dtype that is done."""

from __future__ import annotations

from typing import Any

import numpy as np

DTYPES = "?bBhHiIlLqQefd"
"""Characters of the dtypes that backends know: bool, integers, float16, float32 and float64."""


def computed_in(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype in which arrays of `dtype` are pooled: in this machine's byte order, and float32 for ml_dtypes' bfloat16."""
    # A look at the kind first: NumPy takes 2 us to say a dtype's name.
    if dtype.kind == "V":
        return np.dtype(np.float32) if dtype.name == "bfloat16" else dtype  # which NumPy can't compare
    if (dtype.isnative and dtype.fields is None) or dtype.char not in DTYPES:
        return dtype
    return np.dtype(dtype.char)  # numbers whose parts have names, too, are numbers
