"""The registry: every backend by its name, in the order in which they are listed."""

from pooling.backends import (
    argmax_switches,
    block_reduce,
    numba_loops,
    reference,
    repeat_mask,
    simd,
    strided_reshape,
    strided_slices,
)
from pooling.backends.base import Backend
from pooling.errors import UnknownBackendError, shown

REGISTRY: dict[str, Backend] = {
    "reference": reference.BACKEND,
    "block_reduce": block_reduce.BACKEND,
    "repeat_mask": repeat_mask.BACKEND,
    "argmax_switches": argmax_switches.BACKEND,
    "strided_reshape": strided_reshape.BACKEND,
    "strided_slices": strided_slices.BACKEND,
    "numba_loops": numba_loops.BACKEND,
    "simd": simd.BACKEND,
}


def list_backends() -> tuple[str, ...]:
    """Names of all backends, in registry order.

    Examples
    --------
    >>> list_backends()[0]
    'reference'
    """
    return tuple(REGISTRY)


def get_backend(name: str) -> Backend:
    """The backend of this name.

    Raises
    ------
    UnknownBackendError
        There is none; the message suggests the nearest name.

    Examples
    --------
    >>> get_backend("strided_slices").ties
    ('first', 'last', 'split', 'all')
    """
    try:
        return REGISTRY[name]
    except (KeyError, TypeError):
        if isinstance(name, Backend):
            raise UnknownBackendError(f"backend is a Backend: pass its name, {shown(name.name)}") from None
        if isinstance(name, str) and name == "auto":
            raise UnknownBackendError(
                "backend='auto' is a choice among the backends, not one of them: pooling.pick(shape, dtype, operator) names it"
            ) from None
        import difflib

        near = difflib.get_close_matches(shown(name).lower().strip("'"), REGISTRY, n=1, cutoff=0.4)
        hint = f"did you mean '{near[0]}'?" if near else "it is not known."
        raise UnknownBackendError(f"backend={shown(name)}: {hint} There are: auto, {', '.join(REGISTRY)}") from None
