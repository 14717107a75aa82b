"""Who does what of a shared pass: threads draw their ranges inside the kernel, where no GIL is needed.

Handing out ranges from Python cost more than the work: each time a thread comes back for one it needs the GIL, and to be woken
when another holds it, 30 to 50 us. With 2 threads 3 MB took twice as long as with one.

For the same reason a helper that has just worked waits a little for more without the GIL (:func:`attend`), looking at a
*letter box*: an array in which a caller writes down a function and where its arguments are. It is the caller's until it
has taken the letter back and no helper is inside any more. A helper first says that it goes in and then looks whether the
letter is still there; the caller first takes it back and then looks whether anybody is in: so one of them sees the other.
"""

from __future__ import annotations

from typing import Any

from pooling.compiler import intrinsic, ir, types
from pooling.jit import Errand, kernel
from pooling.threads import ARGUMENTS, DONE, FUNCTION, INSIDE, LETTER, NEXT, NUMBER, WAITING, WHO, WITH

SPINS = 4000
"""How often to look, about 40 us, before giving up: a caller for the last ranges of others, a helper for another call."""

PATIENCE = 1 << 20
"""How often a caller looks, some 10 ms, for helpers to come out, before Python puts it to sleep between looks."""

body: Any  # bound when a pass is made


@intrinsic
def fetch_add(typing: Any, array: Any, index: Any, amount: Any) -> Any:
    """Add to an element of an array that other threads use too; its value before."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.atomic_rmw("add", builder.gep(data, [args[1]]), args[2], "seq_cst")

    return types.int64(array, types.intp, types.int64), codegen


@intrinsic
def look(typing: Any, array: Any, index: Any) -> Any:
    """An element of an array that other threads write to."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.load_atomic(builder.gep(data, [args[1]]), "seq_cst", 8)

    return types.int64(array, types.intp), codegen


@intrinsic
def show(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """Write an element of an array that other threads read."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        builder.store_atomic(args[2], builder.gep(data, [args[1]]), "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.int64), codegen


@intrinsic
def run(typing: Any, function: Any, argument: Any) -> Any:
    """Call the function at an address with another address."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        byte = ir.IntType(8).as_pointer()
        function = builder.inttoptr(args[0], ir.FunctionType(ir.VoidType(), [byte]).as_pointer())
        builder.call(function, [builder.inttoptr(args[1], byte)])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def address_of(typing: Any, array: Any, index: Any) -> Any:
    """The address of an element."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.ptrtoint(builder.gep(data, [args[1]]), context.get_value_type(types.int64))

    return types.int64(array, types.intp), codegen


@intrinsic
def pause(typing: Any) -> Any:
    """Tell the CPU that this is a loop that waits."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if "x86_64" in builder.module.triple:
            function = ir.FunctionType(ir.VoidType(), [])
            builder.call(builder.module.declare_intrinsic("llvm.x86.sse2.pause", (), function), [])
        return context.get_dummy_value()

    return types.void(), codegen


def take_turns(
    tickets: Any, n: int, grain: int, most: int, v_each: int, t_each: int, v: Any, t: Any, args: Any
) -> None:
    """Do ranges of `grain` units until all `n` are drawn, with a share of the buffers for each of `most` threads."""
    me = fetch_add(tickets, WHO, 1)
    if me >= most:  # a helper too many
        return
    values = v[me * v_each : (me + 1) * v_each]
    start = fetch_add(tickets, NEXT, grain)
    while start < n:
        stop = min(start + grain, n)
        if t is None:
            body(start, stop, *(args + (values, t)))
        else:
            body(start, stop, *(args + (values, t[me * t_each : (me + 1) * t_each])))
        fetch_add(tickets, DONE, stop - start)
        start = fetch_add(tickets, NEXT, grain)


errand: Any = Errand(take_turns)


@kernel
def draw(
    box: Any, tickets: Any, n: int, grain: int, most: int, v_each: int, t_each: int, v: Any, t: Any, *args: Any
) -> None:
    """Do what there is to do together with helpers that are there, or come; then wait a little for the last ranges."""
    if most == 0:  # nobody else
        body(0, n, *(args + (v, t)))
        return
    function = errand(tickets[ARGUMENTS:], tickets, n, grain, most, v_each, t_each, v, t, args)
    arguments = address_of(tickets, ARGUMENTS)
    if most > 1:
        box[FUNCTION], box[WITH] = function, arguments
        number = look(box, NUMBER) + 1
        show(box, LETTER, number)
        show(box, NUMBER, number)
    run(function, arguments)  # as helpers do: one piece of code less to compile
    for _ in range(SPINS):
        if look(tickets, DONE) >= n:
            break
        pause()
    if most > 1:
        show(box, LETTER, 0)
        for _ in range(PATIENCE):
            if look(box, INSIDE) == 0:
                break
            pause()


@kernel
def attend(box: Any) -> None:
    """Wait for letters, and do what they say, until none has come for a while."""
    fetch_add(box, WAITING, 1)
    seen, spins = 0, 0
    while spins < SPINS:
        spins += 1
        number = look(box, NUMBER)
        if number != seen:
            seen = number
            fetch_add(box, INSIDE, 1)
            if look(box, LETTER) == number:
                run(box[FUNCTION], box[WITH])
                spins = 0
            fetch_add(box, INSIDE, -1)
        pause()
    fetch_add(box, WAITING, -1)
