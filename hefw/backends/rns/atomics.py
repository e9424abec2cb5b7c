"""Words that several threads read and write at once, and waiting for one: instructions for numba to put in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from hefw.backends.rns.modular import inlined

WORD, NUMBER = ir.IntType(64), ir.IntType(32)
#: A thread that has looked so often, which takes some 50 us, lets others have its core.
PATIENCE = 2000
#: What tells a processor that it waits: LLVM's function and its arguments, of 32 bits.
PAUSES: dict[str, tuple[str, tuple[int, ...]]] = {
    "x86_64": ("llvm.x86.sse2.pause", ()),
    "aarch64": ("llvm.aarch64.hint", (1,)),
}


def _call(builder: Any, result: Any, name: str, arguments: Sequence[Any]) -> None:
    kind, module = ir.FunctionType(result, [argument.type for argument in arguments]), builder.module
    builder.call(module.globals.get(name) or ir.Function(module, kind, name), arguments)


def _word(builder: Any, address: Any) -> Any:
    return builder.inttoptr(address, WORD.as_pointer())


@intrinsic  # type: ignore[untyped-decorator,unused-ignore]
def taken_from(_: Any, address: Any, count: Any) -> Any:
    """Add to a word: what it was before."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.atomic_rmw("add", _word(builder, args[0]), args[1], "acq_rel")

    return types.uint64(types.uint64, types.uint64), code


@intrinsic  # type: ignore[untyped-decorator,unused-ignore]
def seen(_: Any, address: Any) -> Any:
    """A word; what was written before it is there too."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load_atomic(_word(builder, args[0]), "acquire", 8)

    return types.uint64(types.uint64), code


@intrinsic  # type: ignore[untyped-decorator,unused-ignore]
def _pause(_: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        known = PAUSES.get(builder.module.triple.partition("-")[0])
        if known:
            name, numbers = known
            _call(builder, ir.VoidType(), name, [NUMBER(number) for number in numbers])
        return context.get_dummy_value()

    return types.void(), code


@intrinsic  # type: ignore[untyped-decorator,unused-ignore]
def _let_others(_: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _call(builder, NUMBER, "sched_yield", [])
        return context.get_dummy_value()

    return types.void(), code


@inlined
def wait(looked):  # type: ignore[no-untyped-def]
    """A moment, after having looked so often."""
    if looked < PATIENCE:
        _pause()
    else:
        _let_others()


@inlined
def wait_while_below(address, least):  # type: ignore[no-untyped-def]
    """Until a word is at least so much."""
    looked = 0
    while seen(address) < least:
        wait(looked)
        looked += 1
