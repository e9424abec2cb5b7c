"""The loops of `words` and `halves` as machine code that a C function calls: numba makes it, without numba it runs.

Loading numba takes longer than a server needs for all else before its first operation; what it compiles is kept
(`loops`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
from numba import cfunc, types

from hefw.backends.rns import abi, halves, modular, ntt
from hefw.backends.rns.abi import COLUMNS, ENDS, PREFIX, SIGNATURES, machine
from hefw.backends.rns.atomics import seen, taken_from, wait, wait_while_below
from hefw.backends.rns.modular import inlined
from hefw.backends.rns.pieces import done
from hefw.backends.rns.views import after, floats, integers, number, some

#: Phases among which a thread looks for work: those of a rotation on each track, and more.
AHEAD = 24
#: What loops may call: the C library's.
PROVIDED = {"memset", "memcpy", "memmove", "sched_yield"}


def powers(base, quotient, constants, out, n):  # type: ignore[no-untyped-def]
    modular.powers(base, quotient, some(constants, (COLUMNS,)), some(out, (n,)))


def quotients(values, high, low, prime, out, n):  # type: ignore[no-untyped-def]
    modular.quotients(some(values, (n,)), high, low, prime, some(out, (n,)))


def multiply(values, factors, quotient, prime, out, n):  # type: ignore[no-untyped-def]
    modular.multiply(some(values, (n,)), some(factors, (n,)), some(quotient, (n,)), prime, some(out, (n,)))


def forward(a, roots, quotient, ends, prime, room, n):  # type: ignore[no-untyped-def]
    ntt.forward(
        some(a, (n,)), some(roots, (n,)), some(quotient, (n,)), some(ends, (2 * n,)), prime, some(room, (4, ENDS))
    )


def backward(a, roots, quotient, ends, constants, room, n):  # type: ignore[no-untyped-def]
    row = some(constants, (COLUMNS,))
    ntt.backward(
        some(a, (n,)), some(roots, (n,)), some(quotient, (n,)), some(ends, (2 * n,)), row, some(room, (4, ENDS))
    )


def run(job, me, room):  # type: ignore[no-untyped-def]
    """All phases of a job (`tape`), as one of its threads: number 0 leads, others come when they can.

    A phase's pieces are dealt out in as many ranges as there are threads, each of which begins with its own and goes on
    with what others have left. When nothing is left of a phase, one of the next is begun whose needs are done. The
    leader returns when all is done, and does not wait for threads that have not come. Whoever comes after the end finds
    no piece left, and touches nothing but the job's own arrays.
    """
    j = some(job, (abi.JOB,))
    count, threads = number(j, abi.COUNT), number(j, abi.THREADS)
    phases = integers(j[abi.PHASES], (count, abi.PHASE))
    at = looked = 0
    while at < count:
        worked = False
        for k in range(at, min(at + AHEAD, count)):
            if not (finished(j, phases, phases[k, abi.NEEDS]) and finished(j, phases, phases[k, abi.ALSO])):
                continue
            pieces, ready = phases[k, abi.PIECES], 0
            for other in range(threads):
                whose = (me + other) % threads
                begin, end = pieces * whose // threads, pieces * (whose + 1) // threads
                ticket = tickets(j, k, whose)
                if begin + types.int64(seen(ticket)) >= end:
                    continue
                i = begin + types.int64(taken_from(ticket, types.uint64(1)))
                while i < end:
                    done(j, phases[k], i, room)
                    ready += 1
                    i = begin + types.int64(taken_from(ticket, types.uint64(1)))
            if ready:
                taken_from(tickets(j, k, threads), types.uint64(ready))
                worked = True
                break
        while at < count and dealt(j, phases, at):
            at += 1
        if worked:
            looked = 0
        else:
            wait(looked)
            looked += 1
    if me == 0:
        for k in range(count):
            wait_while_below(tickets(j, k, threads), types.uint64(phases[k, abi.PIECES]))


@inlined
def tickets(j, k, whose):  # type: ignore[no-untyped-def]
    """The word that counts what is taken of a thread's range in phase k, or, after those of all, what is done of it."""
    return after(j[abi.MEETING], k * (number(j, abi.THREADS) + 1) + whose)


@inlined
def finished(j, phases, which):  # type: ignore[no-untyped-def]
    """Whether a phase of the tape is done, if it is of this job; those before it are."""
    k = which - number(j, abi.BEGIN)
    if k < 0:
        return True
    return types.int64(seen(tickets(j, k, number(j, abi.THREADS)))) >= phases[k, abi.PIECES]


@inlined
def dealt(j, phases, k):  # type: ignore[no-untyped-def]
    """Whether no piece of phase k is left to take."""
    pieces, threads = phases[k, abi.PIECES], number(j, abi.THREADS)
    for whose in range(threads):
        begin, end = pieces * whose // threads, pieces * (whose + 1) // threads
        if begin + types.int64(seen(tickets(j, k, whose))) < end:
            return False
    return True


def split(addresses, start, low, high, count, n):  # type: ignore[no-untyped-def]
    halves.split(some(addresses, (count,)), start, floats(low, (count, n)), floats(high, (count, n)))


def join(low, high, prime, over, shift, power, quotient, addresses, start, more, count, n):  # type: ignore[no-untyped-def]
    given = floats(low, (count, n)), floats(high, (count, n))
    halves.join(given[0], given[1], prime, over, shift, power, quotient, some(addresses, (count,)), start, more)


def compiled() -> bytes:
    """An object file with all loops, for this machine.

    RuntimeError where they would need numba or Python to run.
    """
    target = machine()
    whole = llvm.parse_assembly("")
    whole.triple, whole.data_layout = target.triple, str(target.target_data)
    for name, signature in SIGNATURES.items():
        whole.link_in(_module(name, signature, globals()[name]))
    passes = llvm.create_new_module_pass_manager()
    passes.add_global_dead_code_eliminate_pass()
    passes.run(whole, llvm.create_pass_builder(target, llvm.create_pipeline_tuning_options()))
    needed = {f.name for f in whole.functions if f.is_declaration and not f.name.startswith("llvm.")} - PROVIDED
    if needed:
        raise RuntimeError(f"compiled loops need {', '.join(sorted(needed))}")
    found: bytes = target.emit_object(whole)
    return found


def _module(name: str, signature: str, loop: Callable[..., None]) -> Any:
    kinds = [types.int64 if code == "n" else types.uint64 for code in signature]
    made = cfunc(types.void(*kinds), boundscheck=False, error_model="numpy", forceinline=True)(loop)
    module = llvm.parse_assembly(made.inspect_llvm())
    for function in module.functions:
        if function.name == made.native_name:
            function.name = PREFIX + name
        elif not function.is_declaration:
            function.linkage = "internal"
    return module
