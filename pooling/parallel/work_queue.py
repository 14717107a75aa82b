"""Work stealing: threads take ranges of units inside the compiled kernel, without the GIL.

Handing out ranges from Python costs more than the work: a thread needs the GIL for each range, and 30 to 50 us to be woken when
another holds it. Each thread starts with a part of its own, the same one in every call, whose data are in its core's cache, and
then takes units from the others' parts, by an atomic counter for each part.

A helper thread that has just worked spin-waits for more without the GIL (:func:`wait_for_work`), on a *mailbox*: an array in
which a caller writes the address of a function and of its arguments (the *message*). The mailbox belongs to the caller until it
has withdrawn the message and no helper is inside any more. A helper first announces that it enters and then checks that the
message is still there; the caller first withdraws the message and then checks that no helper is inside: so one of them sees the
other.
"""

from __future__ import annotations

import sys
from typing import Any

from pooling.parallel.pool import (
    ARGUMENTS,
    CALLED,
    CPU,
    DONE,
    FUNCTION,
    INSIDE,
    MESSAGE,
    NEXT,
    NUMBER,
    OVERFLOWED,
    PARTICIPANTS,
    WAITING,
    WITH,
)
from pooling.runtime.jit import UNBOUND, ThreadEntry, inlined, kernel
from pooling.runtime.numba_api import cgutils, intrinsic, ir, types

SPINS = 4000
"""Spins, about 40 us, of a caller that waits for the last ranges of helpers, and of a helper that waits for another call."""

PATIENCE = 1 << 20
"""Spins, some 10 ms, within a call: of a caller that waits for helpers to leave, before it yields its CPU between spins; of a
helper that waits for more work, before it sleeps until it is woken."""

body: Any = UNBOUND  # bound when a pass is made: what computes a range of units


@intrinsic
def fetch_add(typing: Any, array: Any, index: Any, amount: Any) -> Any:
    """Atomic fetch-and-add on an array's element; returns the value before."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.atomic_rmw("add", builder.gep(data, [args[1]]), args[2], "seq_cst")

    return types.int64(array, types.intp, types.int64), codegen


@intrinsic
def atomic_load(typing: Any, array: Any, index: Any) -> Any:
    """Sequentially consistent load of an element."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.load_atomic(builder.gep(data, [args[1]]), "seq_cst", 8)

    return types.int64(array, types.intp), codegen


@intrinsic
def atomic_store(typing: Any, array: Any, index: Any, value: Any) -> Any:
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
    """Whether this thread's arithmetic has overflowed since the last call: 0, or 1; 1 where the CPU does not tell."""

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


def run_units(
    place: int, grain: int, most: int, queue: Any, a: Any, b: Any, v: Any, won: Any, t: Any, n: int, v_each: int, t_each: int,
    args: Any,
) -> None:  # fmt: skip
    """Take ranges of `grain` units until none of the `n` are left; each of `most` threads has its part of the buffers.

    There are `most` parts; the one at `place` comes first, then work is stolen from the others. With 0 threads this one does all.
    """
    given = (a, b, won, *args)
    if most == 0:
        body(0, n, *(given + (v, t)))
        queue[OVERFLOWED] = overflowed()
        return
    me = fetch_add(queue, PARTICIPANTS, 1)
    if me >= most:  # more helpers than there are parts
        return
    values = v[me * v_each : (me + 1) * v_each]
    for i in range(most):
        part = (place + i) % most
        first, end = n * part // most, n * (part + 1) // most
        start = first + fetch_add(queue, NEXT + 8 * part, grain)
        while start < end:
            stop = min(start + grain, end)
            if t is None:
                body(start, stop, *(given + (values, t)))
            else:
                body(start, stop, *(given + (values, t[me * t_each : (me + 1) * t_each])))
            if overflowed():
                atomic_store(queue, OVERFLOWED, 1)
            fetch_add(queue, DONE, stop - start)
            start = first + fetch_add(queue, NEXT + 8 * part, grain)


thread_entry: Any = ThreadEntry(run_units)

GRAIN, MOST, QUEUE, A, B, V, WON, T = ARGUMENTS, ARGUMENTS + 1, *range(ARGUMENTS + 2 + 4, ARGUMENTS + 2 + 6 * 7, 7)
"""Offsets in the queue of the arguments that differ from call to call: numbers, and of arrays the address, with the length after
it. Numba's arrays are seven words, of which these are the fifth and the sixth."""


@kernel
def prepare(queue: Any, n: int, v_each: int, t_each: int, a: Any, b: Any, v: Any, won: Any, t: Any, *args: Any) -> int:
    """Write the arguments of `thread_entry` into the queue; returns its address.

    Calling a dispatcher takes 0.1 us per argument. So that is done once, and each call writes only its arrays.
    """
    address: int = thread_entry(queue[ARGUMENTS:], 0, 0, queue, a, b, v, won, t, n, v_each, t_each, args)
    return address


@inlined
def store_array(queue: Any, at: int, array: Any) -> None:
    """Write an array's address and length into the arguments."""
    queue[at] = address_of(array, 0)
    queue[at + 1] = len(array)


@kernel
def run_shared(
    mailbox: Any, queue: Any, function: int, n: int, grain: int, most: int, a: Any, b: Any, v: Any, won: Any, t: Any
) -> int:
    """Run all units together with the helpers that take part; then spin-wait for their last ranges.

    Returns non-zero where some sum has overflowed.
    """
    queue[GRAIN], queue[MOST] = grain, most
    store_array(queue, QUEUE, queue)
    store_array(queue, A, a)
    store_array(queue, B, b)
    store_array(queue, V, v)
    if won is not None:
        store_array(queue, WON, won)
        store_array(queue, T, t)
    arguments = address_of(queue, ARGUMENTS)
    if most == 0:  # no helpers
        run(function, arguments, 0)
        return atomic_load(queue, OVERFLOWED)
    queue[DONE] = queue[PARTICIPANTS] = queue[OVERFLOWED] = 0
    for part in range(most):
        queue[NEXT + 8 * part] = 0
    mailbox[FUNCTION], mailbox[WITH], mailbox[CPU] = function, arguments, current_cpu()
    number = atomic_load(mailbox, NUMBER) + 1
    atomic_store(mailbox, MESSAGE, number)
    atomic_store(mailbox, NUMBER, number)
    run(function, arguments, 0)  # as helpers do
    for _ in range(SPINS):
        if atomic_load(queue, DONE) >= n:
            break
        pause()
    atomic_store(mailbox, MESSAGE, 0)
    # Here and not in Python, where an interrupt would end the wait while a helper still writes to the arrays.
    waits = 0
    while atomic_load(mailbox, INSIDE) > 0:
        waits += 1
        if waits < PATIENCE:
            pause()
        else:
            yield_cpu()
    return atomic_load(queue, OVERFLOWED)


@kernel
def wait_for_work(mailbox: Any) -> int:
    """Spin-wait for messages and run them, until none has come for a while; returns -1.

    A helper on the CPU of the last caller would slow it down: it returns that CPU's number at once.
    """
    cpu = current_cpu()
    if cpu >= 0 and cpu == mailbox[CPU]:
        return cpu
    # The caller's is 0. Two helpers may get the same one when others come and go, which does no harm.
    place = fetch_add(mailbox, WAITING, 1) + 1
    seen, spins, called, shared = 0, 0, 0, False
    while spins < SPINS and called < PATIENCE and not shared:
        if atomic_load(mailbox, CALLED) == 1:  # leaving during a call would leave the next one without this helper
            spins, called = 0, called + 1
        else:
            spins, called = spins + 1, 0
        number = atomic_load(mailbox, NUMBER)
        if number != seen:
            seen = number
            fetch_add(mailbox, INSIDE, 1)
            if atomic_load(mailbox, MESSAGE) == number:
                cpu = current_cpu()
                shared = cpu >= 0 and cpu == mailbox[CPU]
                if not shared:
                    run(mailbox[FUNCTION], mailbox[WITH], place)
                    called = 0
            fetch_add(mailbox, INSIDE, -1)
        pause()
    fetch_add(mailbox, WAITING, -1)
    return cpu if shared else -1
