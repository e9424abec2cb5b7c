"""Vectors of numbers at addresses, for instructions that numba puts in place: what `lanes` and `doubles` share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types

#: How far ahead of its use a key is asked for, in bytes.
AHEAD = 4096
LOCALITY = 0
WORD = ir.IntType(64)


class Vectors:
    """Instructions on vectors of so many words."""

    count: int

    def __init__(self, builder: Any) -> None:
        self._builder = builder

    def spread(self, number: Any) -> Any:
        """One number in all places."""
        kind = ir.VectorType(number.type, self.count)
        first = self._builder.insert_element(ir.Constant(kind, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
        return self._mixed(first, first, [0] * self.count)

    def load(self, address: Any) -> Any:
        return self._builder.load(self._pointer(address), align=8)

    def store(self, vector: Any, address: Any) -> None:
        self._builder.store(vector, self._pointer(address), align=8)

    def _pointer(self, address: Any) -> Any:
        return self._builder.inttoptr(address, ir.VectorType(WORD, self.count).as_pointer())

    def expect(self, address: Any) -> None:
        """Have what is there brought from memory, to be read once."""
        byte = ir.IntType(8).as_pointer()
        number = ir.IntType(32)
        function = self._builder.module.declare_intrinsic(
            "llvm.prefetch", (byte,), ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        )
        self._builder.call(function, [self._builder.inttoptr(address, byte), number(0), number(LOCALITY), number(1)])

    def at(self, address: Any, k: int, apart: Any) -> Any:
        """The address of number k of those that are so many bytes apart."""
        return self._builder.add(address, self._builder.mul(apart, ir.Constant(WORD, k)))

    def _mixed(self, x: Any, y: Any, order: Sequence[int]) -> Any:
        return self._builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(ir.IntType(32), self.count), order))


Code = Callable[[Any, Any], None]


def given(count: int, code: Code) -> tuple[Any, Any]:
    """What an intrinsic of so many words gives numba: `code(builder, arguments)` writes it."""

    def generated(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        code(builder, args)
        return context.get_dummy_value()

    return types.void(*([types.uint64] * count)), generated


#: Two vectors that a layer of the transform joins, and the number of their root.
Join = tuple[int, int, int]
#: Of two layers on four vectors: that of the pairs far apart, then the other one.
FAR: tuple[Join, ...] = ((0, 2, 0), (1, 3, 0))
NEAR: tuple[Join, ...] = ((0, 1, 1), (2, 3, 2))
