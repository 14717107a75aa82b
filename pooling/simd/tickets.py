"""Who does what of a shared pass: threads draw their ranges inside the kernel, where no GIL is needed.

Handing out ranges from Python cost more than the work: each time a thread comes back for one it needs the GIL, and to be woken
when another holds it, 30 to 50 us. With 2 threads 3 MB took twice as long as with one.

Each thread begins with a part of its own, the same one in every call, and helps with the others' when that is done: what it
pooled or wrote last time is in its core's cache. When all drew from one part, 3 MB took 90 us or 240, as the draw happened to be.

For the same reason a helper that has just worked waits a little for more without the GIL (:func:`attend`), looking at a
*letter box*: an array in which a caller writes down a function and where its arguments are. It is the caller's until it
has taken the letter back and no helper is inside any more. A helper first says that it goes in and then looks whether the
letter is still there; the caller first takes it back and then looks whether anybody is in: so one of them sees the other.
"""

from __future__ import annotations

import sys
from typing import Any

from pooling.compiler import cgutils, intrinsic, ir, types
from pooling.jit import Errand, inlined, kernel
from pooling.threads import (
    ARGUMENTS,
    CALLED,
    CPU,
    DONE,
    FUNCTION,
    INSIDE,
    LETTER,
    NEXT,
    NUMBER,
    OVERFLOWED,
    WAITING,
    WHO,
    WITH,
)

SPINS = 4000
"""How often to look, about 40 us, before giving up: a caller for the last ranges of others, a helper for another call."""

PATIENCE = 1 << 20
"""How often to look, some 10 ms, in a call: a caller for helpers to come out, before it lets others run between looks; a helper
for more to do, before it sleeps until it is called again."""

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
def run(typing: Any, function: Any, argument: Any, place: Any) -> Any:
    """Call the function at an address with another address and a number."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        byte = ir.IntType(8).as_pointer()
        function = builder.inttoptr(args[0], ir.FunctionType(ir.VoidType(), [byte, args[2].type]).as_pointer())
        builder.call(function, [builder.inttoptr(args[1], byte), args[2]])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@intrinsic
def address_of(typing: Any, array: Any, index: Any) -> Any:
    """The address of an element."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.ptrtoint(builder.gep(data, [args[1]]), context.get_value_type(types.int64))

    return types.int64(array, types.intp), codegen


@intrinsic
def current_cpu(typing: Any) -> Any:
    """The number of the CPU that this thread runs on; -1 where that takes more than a call."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        number = ir.IntType(32)
        cpu = number(-1)
        if sys.platform == "linux":
            function = ir.FunctionType(number, [])
            cpu = builder.call(cgutils.get_or_insert_function(builder.module, function, "sched_getcpu"), [])
        return builder.sext(cpu, context.get_value_type(types.int64))

    return types.int64(), codegen


@intrinsic
def yield_cpu(typing: Any) -> Any:
    """Let another thread run that wants this CPU."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if sys.platform != "win32":
            function = ir.FunctionType(ir.IntType(32), [])
            builder.call(cgutils.get_or_insert_function(builder.module, function, "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def pause(typing: Any) -> Any:
    """Tell the CPU that this is a loop that waits."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if "x86_64" in builder.module.triple:
            function = ir.FunctionType(ir.VoidType(), [])
            builder.call(builder.module.declare_intrinsic("llvm.x86.sse2.pause", (), function), [])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def overflowed(typing: Any) -> Any:
    """Whether this thread's arithmetic has overflowed since it was asked last: 0, or 1; 1 where that is not known."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        number, byte, result = ir.IntType(32), ir.IntType(8).as_pointer(), context.get_value_type(types.int64)
        triple = builder.module.triple
        if triple.startswith("x86_64"):
            state = cgutils.alloca_once(builder, number)
            function = ir.FunctionType(ir.VoidType(), [byte])
            read, write = (
                builder.module.declare_intrinsic(f"llvm.x86.sse.{n}mxcsr", (), function) for n in ("st", "ld")
            )
            builder.call(read, [builder.bitcast(state, byte)])
            flag = number(1 << 3)
            found = builder.and_(builder.load(state), flag)
            with builder.if_then(builder.icmp_unsigned("!=", found, number(0)), likely=False):
                builder.store(builder.xor(builder.load(state), flag), state)
                builder.call(write, [builder.bitcast(state, byte)])
            return builder.zext(builder.icmp_unsigned("!=", found, number(0)), result)
        if triple.startswith(("aarch64", "arm64")):
            flag = result(1 << 2)
            found = builder.asm(ir.FunctionType(result, []), "mrs $0, fpsr", "=r", [], True)
            without = builder.and_(found, builder.not_(flag))
            builder.asm(ir.FunctionType(ir.VoidType(), [result]), "msr fpsr, $0", "r", [without], True)
            return builder.zext(builder.icmp_unsigned("!=", builder.and_(found, flag), result(0)), result)
        return result(1)

    return types.int64(), codegen


def take_turns(
    place: int, grain: int, most: int, tickets: Any, a: Any, b: Any, v: Any, won: Any, t: Any, n: int, v_each: int, t_each: int,
    args: Any,
) -> None:  # fmt: skip
    """Do ranges of `grain` units until all `n` are drawn, with a share of the buffers for each of `most` threads.

    There are as many parts; first comes the one at `place`. With 0 threads all is done at once.
    """
    given = (a, b, won, *args)
    if most == 0:
        body(0, n, *(given + (v, t)))
        tickets[OVERFLOWED] = overflowed()
        return
    me = fetch_add(tickets, WHO, 1)
    if me >= most:  # a helper too many
        return
    values = v[me * v_each : (me + 1) * v_each]
    for i in range(most):
        part = (place + i) % most
        first, end = n * part // most, n * (part + 1) // most
        start = first + fetch_add(tickets, NEXT + 8 * part, grain)
        while start < end:
            stop = min(start + grain, end)
            if t is None:
                body(start, stop, *(given + (values, t)))
            else:
                body(start, stop, *(given + (values, t[me * t_each : (me + 1) * t_each])))
            if overflowed():
                show(tickets, OVERFLOWED, 1)
            fetch_add(tickets, DONE, stop - start)
            start = first + fetch_add(tickets, NEXT + 8 * part, grain)


errand: Any = Errand(take_turns)

GRAIN, MOST, TICKETS, A, B, V, WON, T = ARGUMENTS, ARGUMENTS + 1, *range(ARGUMENTS + 2 + 4, ARGUMENTS + 2 + 6 * 7, 7)
"""Where those of the errand's arguments are written that differ from call to call: numbers, and of arrays the address, with the
length after it. Numba's arrays are seven words, of which these are the fifth and the sixth."""


@kernel
def prepare(
    tickets: Any, n: int, v_each: int, t_each: int, a: Any, b: Any, v: Any, won: Any, t: Any, *args: Any
) -> int:
    """Write what the errand is given, and its address.

    Calling Numba's functions takes 0.1 us for each argument; so that is done once, and of each call only the arrays are new.
    """
    address: int = errand(tickets[ARGUMENTS:], 0, 0, tickets, a, b, v, won, t, n, v_each, t_each, args)
    return address


@inlined
def insert(tickets: Any, at: int, array: Any) -> None:
    """Let the errand have this array."""
    tickets[at] = address_of(array, 0)
    tickets[at + 1] = len(array)


@kernel
def draw(
    box: Any, tickets: Any, function: int, n: int, grain: int, most: int, a: Any, b: Any, v: Any, won: Any, t: Any
) -> int:
    """Do what there is to do together with helpers that are there, or come; then wait a little for the last ranges.

    Returns whether some sum has overflowed: not 0.
    """
    tickets[GRAIN], tickets[MOST] = grain, most
    insert(tickets, TICKETS, tickets)
    insert(tickets, A, a)
    insert(tickets, B, b)
    insert(tickets, V, v)
    if won is not None:
        insert(tickets, WON, won)
        insert(tickets, T, t)
    arguments = address_of(tickets, ARGUMENTS)
    if most == 0:  # nobody else
        run(function, arguments, 0)
        return look(tickets, OVERFLOWED)
    tickets[DONE] = tickets[WHO] = tickets[OVERFLOWED] = 0
    for part in range(most):
        tickets[NEXT + 8 * part] = 0
    box[FUNCTION], box[WITH], box[CPU] = function, arguments, current_cpu()
    number = look(box, NUMBER) + 1
    show(box, LETTER, number)
    show(box, NUMBER, number)
    run(function, arguments, 0)  # as helpers do
    for _ in range(SPINS):
        if look(tickets, DONE) >= n:
            break
        pause()
    show(box, LETTER, 0)
    # Here and not in Python, where an interrupt would end the wait while a helper still writes to the arrays.
    waits = 0
    while look(box, INSIDE) > 0:
        waits += 1
        if waits < PATIENCE:
            pause()
        else:
            yield_cpu()
    return look(tickets, OVERFLOWED)


@kernel
def attend(box: Any) -> int:
    """Wait for letters, and do what they say, until none has come for a while; then -1.

    A helper on the CPU of whoever wrote the last letter keeps him from writing another, and returns its number at once.
    """
    cpu = current_cpu()
    if cpu >= 0 and cpu == box[CPU]:
        return cpu
    place = fetch_add(box, WAITING, 1) + 1  # the caller's is 0; that two have one, when others come and go, is no harm
    seen, spins, called, shared = 0, 0, 0, False
    while spins < SPINS and called < PATIENCE and not shared:
        if look(box, CALLED) == 1:  # who left in the middle of a call was missing in the next
            spins, called = 0, called + 1
        else:
            spins, called = spins + 1, 0
        number = look(box, NUMBER)
        if number != seen:
            seen = number
            fetch_add(box, INSIDE, 1)
            if look(box, LETTER) == number:
                cpu = current_cpu()
                shared = cpu >= 0 and cpu == box[CPU]
                if not shared:
                    run(box[FUNCTION], box[WITH], place)
                    called = 0
            fetch_add(box, INSIDE, -1)
        pause()
    fetch_add(box, WAITING, -1)
    return cpu if shared else -1
