"""The registry: every backend by its name, in the order in which they are told.

One file per trick. The forward pass and, right below it, its backward pass; a docstring that explains the trick and says
what it costs; and one `Backend` named BACKEND at the end that declares what it can do. Adding one is one such file and
one line here. Files that begin with an underscore are shared helpers.
"""

from pooling.backend import Backend
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


def backends() -> tuple[str, ...]:
    """Names of all backends, in registry order.

    Examples
    --------
    >>> backends()[0]
    'reference'
    """
    return tuple(REGISTRY)


def backend(name: str) -> Backend:
    """The backend of this name.

    Raises
    ------
    UnknownBackendError
        There is none; the message suggests the nearest name.

    Examples
    --------
    >>> backend("strided_slices").ties
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
