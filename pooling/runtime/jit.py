"""Numba without its traps: compile at the first call, cache on disk when that is possible (`kernel_cache.py`), never stale.

With NUMBA_DISABLE_JIT a kernel runs as the Python function that it is, unless it is made of vectors.

A kernel that others call becomes part of their code. Numba would make each function a library of its own, optimized,
translated to machine code, callable from Python and cached, and then inline it all the same: twice the time to compile.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, ParamSpec, TypeVar, cast

import pooling.runtime.loaded_code  # noqa: F401  (which remembers the state of the files that kernels are imported from)
from pooling.errors import UnsupportedError
from pooling.runtime.availability import DISABLED, disabled
from pooling.runtime.cached_property import cached_property
from pooling.runtime.fork import compiling

P = ParamSpec("P")
R = TypeVar("R")

OPTIONS: dict[str, Any] = {"error_model": "numpy", "no_cfunc_wrapper": True, "_nrt": False}
"""Of every kernel. "_nrt": kernels allocate nothing, so counting references to their arrays is work for the compiler alone."""


UNBOUND: Any = object()
"""The value of a global name that a kernel has to be bound to before it can be compiled."""

_kernels: dict[tuple[Any, ...], Kernel[..., Any]] = {}
"""Kernels that others were specialised to."""


class Kernel(Generic[P, R]):
    """A function that Numba compiles when it is first called, without the GIL and with IEEE arithmetic."""

    def __init__(self, function: Callable[P, R], inline: bool | None = None, **bound: Kernel[..., Any] | int) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.inline = inline
        self.bound = bound
        self._compiled: Callable[P, R] | None = None
        self._callee: Any = None

    def bind(self, **bound: Kernel[..., Any] | int) -> Kernel[P, R]:
        """This kernel with some global names, its own and those of the kernels it calls, standing for something else.

        For a constant, so that loops over it are unrolled, or for a kernel: a loop, over one or another body. A function
        passed as an argument would do the latter too, but can't be cached on disk.

        Raises
        ------
        TypeError
            A name is bound already, or neither this kernel nor one that it calls uses it.
        """
        again = self.bound.keys() & bound.keys()
        if again:
            raise TypeError(f"{self.function.__name__} is bound to {', '.join(sorted(again))} already")
        unknown = [name for name in bound if not self.mentions(name)]
        if unknown:
            raise TypeError(
                f"{self.function.__name__}, and what it calls, has no global name {', '.join(sorted(unknown))}"
            )
        return self._of(self.inline, self.bound | bound)

    def known(self, names: Mapping[str, Kernel[..., Any] | int]) -> dict[str, Kernel[..., Any] | int]:
        """Of parameters that the kernels of a strategy share, those that this one uses."""
        return {name: value for name, value in names.items() if self.mentions(name)}

    def noinline(self) -> Kernel[P, R]:
        """This kernel, never inlined: for what is called from several places, seldom, and takes long to compile."""
        return self._of(False, self.bound)

    def _of(self, inline: bool | None, bound: dict[str, Kernel[..., Any] | int]) -> Kernel[P, R]:
        """The one kernel with these specialisations: machine code is never freed, so none is made twice."""
        key = type(self), self.function, inline, frozenset(bound.items())
        made = _kernels.get(key) or _kernels.setdefault(key, type(self)(self.function, inline, **bound))
        return cast("Kernel[P, R]", made)

    @property
    def title(self) -> str:
        """A name that identifies the function and what it was bound to, short enough for a file's."""
        values = [f"{n}={v.title if isinstance(v, Kernel) else v}" for n, v in sorted(self.bound.items())]
        if not values:
            return self.function.__name__
        return f"{self.function.__name__}_{digest(','.join(values).encode())[:12]}"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return (self._compiled or self.compiled())(*args, **kwargs)

    def compiled(self) -> Callable[P, R]:
        """Numba's dispatcher."""
        with compiling:
            if self._compiled is None:
                self._compiled = _dispatcher(self)
            return self._compiled

    def callee(self) -> Any:
        """What Numba understands in place of this kernel where another kernel calls it."""
        with compiling:
            if self._callee is None:
                # Which type another result has, only Numba can say, by compiling; such kernels are few and small.
                void = self.function.__annotations__.get("return") == "None"
                self._callee = _part(self) if void else _function(self)
            return self._callee

    def globals(self) -> dict[str, Any]:
        """What the function's names mean: a kernel that it calls inherits what this one is bound to.

        Raises
        ------
        TypeError
            A name that has to be bound is not.
        """
        meanings = self.function.__globals__ | self.bound
        for name in self.function.__code__.co_names:
            value = meanings.get(name)
            if value is UNBOUND:
                raise TypeError(f"{self.function.__name__} has to be bound to {name}")
            if isinstance(value, Kernel):
                inherited = {n: v for n, v in value.known(self.bound).items() if n not in value.bound}
                meanings[name] = value.bind(**inherited) if inherited else value
        return meanings

    def functions(self) -> Iterator[types.FunctionType]:
        """The functions of this kernel and of those it is bound to; whatever else it calls, they name."""
        yield cast("types.FunctionType", self.function)
        for value in self.bound.values():
            if isinstance(value, Kernel):
                yield from value.functions()

    def mentions(self, name: str) -> bool:
        """Whether the function, or a kernel that it calls, uses this global name."""
        return name in self.names

    @cached_property
    def names(self) -> frozenset[str]:
        """The global names that the function uses, and those of the kernels that it calls."""
        own = self.function.__code__.co_names
        meanings = self.function.__globals__
        called = (self.bound.get(name, meanings.get(name)) for name in own)
        return frozenset(own).union(*(kernel.names for kernel in called if isinstance(kernel, Kernel)))


def kernel(function: Callable[P, R]) -> Kernel[P, R]:
    """Decorate a function as a :class:`Kernel`."""
    return Kernel(function)


def inlined(function: Callable[P, R]) -> Kernel[P, R]:
    """The same for what is called so often that a call, with six numbers to each array, must not cost anything."""
    return Kernel(function, inline=True)


def _seen(kernel: Kernel[..., Any]) -> types.FunctionType:
    """The kernel's function as Numba sees it."""
    function = kernel.function
    meanings = kernel.globals()
    for name in function.__code__.co_names:  # Numba can't call a Kernel
        if isinstance(value := meanings.get(name), Kernel):
            meanings[name] = value.callee()
    seen = types.FunctionType(function.__code__, meanings, function.__name__)
    seen.__module__, seen.__qualname__ = function.__module__, kernel.title
    return seen


def _dispatcher(kernel: Kernel[P, R]) -> Callable[P, R]:
    """The kernel as a function to be called from Python."""
    from pooling.runtime.numba_api import interrupts_wait, numba

    if disabled():
        return _in_python(kernel)
    from pooling.runtime.kernel_cache import attach

    seen = _seen(kernel)
    dispatcher: Any = numba.njit(nogil=True, **OPTIONS)(seen)
    attach(dispatcher, seen, kernel.functions())
    compile_for = dispatcher._compile_for_args

    def uninterrupted(*args: Any, **kwargs: Any) -> Any:
        """An interrupt inside LLVM's callbacks would be reported and lost; it waits for the end of compiling."""
        with interrupts_wait():
            return compile_for(*args, **kwargs)

    dispatcher._compile_for_args = uninterrupted
    compiled: Callable[P, R] = dispatcher
    return compiled


def _in_python(kernel: Kernel[P, R]) -> Callable[P, R]:
    """The kernel as plain Python, until Numba may compile again."""
    import numpy as np

    function = kernel.function
    plain = types.FunctionType(function.__code__, kernel.globals(), function.__name__)

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        if not disabled():
            kernel._compiled = None
            return kernel(*args, **kwargs)
        try:
            with np.errstate(all="ignore"):  # as machine code, which says nothing of inf - inf either
                result: R = plain(*args, **kwargs)
                return result
        except NotImplementedError:  # as Numba says it of an intrinsic
            raise UnsupportedError(f"{function.__name__} can't run as Python: {DISABLED}; unset it") from None

    return run


def _function(kernel: Kernel[..., Any]) -> Any:
    """The kernel as a function to be called from kernels alone."""
    from pooling.runtime.numba_api import numba

    return numba.njit(no_cpython_wrapper=True, **OPTIONS)(_seen(kernel))


def _compiled_in(library: Any, context: Any, kernel: Kernel[..., Any], seen: Any, arguments: Any) -> Any:
    """The kernel, which returns nothing, compiled for these types as a part of the code that is being made."""
    from pooling.runtime.numba_api import compiler
    from pooling.runtime.numba_api import types as numba_types

    made = library.__dict__.setdefault("pooling_parts", {})
    if (seen, arguments) not in made:
        flags = compiler.Flags()
        flags.error_model = OPTIONS["error_model"]
        flags.no_compile = flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
        typing = context.typing_context
        result = compiler.compile_internal(typing, context, library, seen, arguments, numba_types.void, flags, {})
        function = library._final_module.get_function(result.fndesc.llvm_func_name)
        # Where it has been inlined into all its callers it need not be kept.
        function.linkage = "linkonce_odr"
        if kernel.inline is not None:
            function.add_function_attribute("alwaysinline" if kernel.inline else "noinline")
        made[seen, arguments] = result.fndesc
    return made[seen, arguments]


def _part(kernel: Kernel[..., Any]) -> Any:
    """The kernel, which returns nothing, as a part of the code of whichever kernel calls it."""
    from pooling.runtime.numba_api import types as numba_types

    seen = _seen(kernel)

    def part(typing: Any, *arguments: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            made = _compiled_in(context.active_code_library, context, kernel, seen, signature.args)
            context.call_internal(builder, made, signature, values)
            return context.get_dummy_value()

        return numba_types.void(*arguments), codegen

    return _intrinsic(part, inspect.signature(kernel.function).parameters)


class NeverCalled(Kernel[P, R]):
    """Stands for a kernel where the code never reaches its call, such as a NaN-safe kernel's call of a NaN-safe one."""

    @property
    def title(self) -> str:
        return f"never_{self.function.__name__}"

    @cached_property
    def names(self) -> frozenset[str]:
        return frozenset()

    def callee(self) -> Any:
        with compiling:
            if self._callee is None:
                self._callee = _trap(self)
            return self._callee


def _trap(kernel: Kernel[..., Any]) -> Any:
    """A call with the kernel's arguments that ends the process."""
    from pooling.runtime.numba_api import ir
    from pooling.runtime.numba_api import types as numba_types

    def trap(typing: Any, *arguments: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            function = builder.module.declare_intrinsic("llvm.trap", (), ir.FunctionType(ir.VoidType(), []))
            builder.call(function, [])
            return context.get_dummy_value()

        return numba_types.void(*arguments), codegen

    return _intrinsic(trap, inspect.signature(kernel.function).parameters)


def never(kernel: Kernel[P, R]) -> NeverCalled[P, R]:
    """What to bind a name to whose call is never reached, instead of this kernel."""
    return cast("NeverCalled[P, R]", NeverCalled(kernel.function)._of(None, {}))


class ThreadEntry(Kernel[P, R]):
    """A kernel for another thread to run. In a kernel, calling it does not run it.

    It is called with an array of 64-bit integers, into which the other arguments are written. What the call gives is the address
    of a function that takes the address of that array, and a number, the kernel's first argument, and runs the kernel.
    """

    def callee(self) -> Any:
        with compiling:
            if self._callee is None:
                self._callee = _thread_entry(self)
            return self._callee


def _thread_entry(kernel: Kernel[..., Any]) -> Any:
    from pooling.runtime.numba_api import ir
    from pooling.runtime.numba_api import types as numba_types

    seen = _seen(kernel)

    def thread_entry(typing: Any, block: Any, *arguments: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            kinds = signature.args[1:]
            first = numba_types.intp
            made = _compiled_in(context.active_code_library, context, kernel, seen, (first, *kinds))
            struct = ir.LiteralStructType([context.get_value_type(kind) for kind in kinds])
            assert context.get_abi_sizeof(struct) <= 2048, "the arguments do not fit the room for them"
            array = context.make_array(block)(context, builder, values[0])
            zero, number = ir.IntType(32)(0), ir.IntType(32)
            written = builder.bitcast(array.data, struct.as_pointer())
            for i, value in enumerate(values[1:]):
                builder.store(value, builder.gep(written, [zero, number(i)]))
            entry = ir.FunctionType(ir.VoidType(), [ir.IntType(8).as_pointer(), context.get_value_type(first)])
            function = ir.Function(builder.module, entry, builder.module.get_unique_name("thread_entry"))
            function.linkage = "internal"
            inside = ir.IRBuilder(function.append_basic_block())
            read = inside.bitcast(function.args[0], struct.as_pointer())
            given = [inside.load(inside.gep(read, [zero, number(i)])) for i in range(len(kinds))]
            context.call_internal_no_propagate(
                inside, made, numba_types.void(first, *kinds), [function.args[1], *given]
            )
            inside.ret_void()
            return builder.ptrtoint(function, context.get_value_type(numba_types.intp))

        return numba_types.intp(block, *arguments), codegen

    return _intrinsic(thread_entry, ["block", *list(inspect.signature(kernel.function).parameters)[1:]])


def _intrinsic(function: Any, names: Any) -> Any:
    """Numba's `intrinsic` of a function whose arguments have these names, after `typing`."""
    from pooling.runtime.numba_api import intrinsic

    positional = inspect.Parameter.POSITIONAL_OR_KEYWORD
    function.__signature__ = inspect.Signature([inspect.Parameter(name, positional) for name in ["typing", *names]])
    return intrinsic(function)


def digest(*parts: bytes) -> str:
    import hashlib

    return hashlib.sha256(b"".join(parts)).hexdigest()
