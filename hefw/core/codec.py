"""The core's values as bytes and back: programs, parameters, figures. Data only: nothing of it runs when it is read.

Known are the dataclasses below, tuples, lists, mappings, numpy arrays of numbers, text, bytes, numbers and None, in
msgpack. An object that several others share (one transform or array in several operations) is stored once and is shared
again. What is read has the types that its dataclasses declare, or is refused.

Long byte strings and arrays (keys, weights) stand behind the msgpack as they are, so that they need not be copied.
"""

from __future__ import annotations

import re
import types
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgpack
import numpy as np

from hefw.core import layout, linear, params, program
from hefw.core.backend import Bootstrapping, Capabilities, Ciphertext, KeyManifest, Plaintext, Provenance
from hefw.core.engine import Figures, Trace
from hefw.core.errors import HefwError, LoweringError
from hefw.core.progress import Progress

VERSION = 1
_MODULES = (layout, linear, params, program)
_SINGLE = (Bootstrapping, Capabilities, Ciphertext, Figures, KeyManifest, Plaintext, Progress, Provenance, Trace)
#: By name: every dataclass of the modules that a program is made of, and a few others.
CLASSES: dict[str, type[Any]] = {kind.__name__: kind for kind in _SINGLE} | {
    name: kind
    for module in _MODULES
    for name, kind in vars(module).items()
    if isinstance(kind, type) and is_dataclass(kind) and kind.__module__ == module.__name__
}
_DTYPE = re.compile(r"[<|](b1|[iu][1248]|f[48]|c8|c16)")
_TUPLE, _LIST, _MAPPING, _SHARED, _LONG = range(5)  # what a list in msgpack stands for, by its first item
_HEAD_BYTES = 8  # of the msgpack's length
_ALIGNED = 16  # what is long begins at a multiple of it, as arrays should
#: Bytes from which on something stands behind the msgpack.
LONG = 2**16

Buffer = bytes | bytearray | memoryview


def encode(value: Any) -> bytes:
    """The bytes of a value; LoweringError if it holds something of a kind that is not known."""
    return b"".join(parts(value))


def parts(value: Any) -> list[Buffer]:
    """What `encode` joins: what is long in the value is among them, not copied."""
    writer = _Writer()
    try:
        root = writer.pack(value)
        head = msgpack.packb([VERSION, writer.objects, root, [len(item) for item in writer.long]], use_bin_type=True)
    except (OverflowError, ValueError) as error:
        raise LoweringError(f"a {type(value).__name__} cannot be written as bytes: {error}") from None
    found: list[Buffer] = [len(head).to_bytes(_HEAD_BYTES, "big") + head + _padding(_HEAD_BYTES + len(head))]
    for item in writer.long:
        found += [item, _padding(len(item))]
    return found


def decode(data: Buffer, kind: Any) -> Any:
    """The value of type `kind`, an annotation, that `encode` wrote; LoweringError for any other bytes.

    Long arrays are views of `data`, and cannot be written to.
    """
    view = memoryview(data).toreadonly()
    end = _HEAD_BYTES + int.from_bytes(view[:_HEAD_BYTES], "big")
    try:
        version, objects, root, lengths = msgpack.unpackb(view[_HEAD_BYTES:end], raw=False, strict_map_key=True)
        if version != VERSION:
            raise ValueError(f"version {version} is not supported, this hefw reads version {VERSION}")
        reader = _Reader(_split(view, end, lengths))
        for item in objects:
            reader.objects.append(reader.shared(item))
        return _conform(reader.unpack(root), kind)
    except (
        HefwError,
        LookupError,
        TypeError,
        ValueError,
        ArithmeticError,
        AttributeError,
        RecursionError,
        msgpack.UnpackException,
    ) as error:
        wanted = getattr(kind, "__name__", str(kind))
        raise LoweringError(f"bytes that are no {wanted}: {error or type(error).__name__}") from None


def _split(view: memoryview, place: int, lengths: Sequence[int]) -> list[memoryview]:
    """What is long: behind the msgpack that ends at `place`, each padded, and nothing else there."""
    found = []
    for length in lengths:
        place += len(_padding(place))
        found.append(view[place : place + length])
        if type(length) is not int or len(found[-1]) != length:
            raise ValueError(f"{length!r} bytes are announced, and are not there")
        place += length
    if place + len(_padding(place)) != len(view):
        raise ValueError(f"{len(view)} bytes, of which {place} are of use")
    return found


def _padding(length: int) -> bytes:
    return bytes(-length % _ALIGNED)


class _Writer:
    """Objects that may be shared go into a table, each behind those that it refers to."""

    def __init__(self) -> None:
        self.objects: list[Any] = []
        self.long: list[Buffer] = []
        self._numbers: dict[int, int] = {}  # by id: the value that is written keeps them all alive

    def pack(self, value: Any) -> Any:
        if value is None or isinstance(value, (bool, str)):
            return value
        if isinstance(value, bytes):
            return self._bytes(value)
        if isinstance(value, np.generic):
            return self.pack(value.item())
        if isinstance(value, (int, float)):
            return value
        if isinstance(value, np.ndarray) or type(value) is CLASSES.get(type(value).__name__):
            return [_SHARED, self._number(value)]
        if isinstance(value, (tuple, list)):
            return [_TUPLE if isinstance(value, tuple) else _LIST, *map(self.pack, value)]
        if isinstance(value, Mapping):
            return [_MAPPING, *([self.pack(key), self.pack(item)] for key, item in value.items())]
        raise LoweringError(
            f"a {type(value).__module__}.{type(value).__name__} cannot be written as bytes; known are numbers, text, "
            f"bytes, arrays, tuples, lists, mappings and {', '.join(sorted(CLASSES))}"
        )

    def _number(self, value: Any) -> int:
        if id(value) not in self._numbers:
            packed = self._array(value) if isinstance(value, np.ndarray) else self._dataclass(value)
            self._numbers[id(value)] = len(self.objects)
            self.objects.append(packed)
        return self._numbers[id(value)]

    def _array(self, value: np.ndarray[Any, Any]) -> list[Any]:
        little = value.astype(value.dtype.newbyteorder("<"), copy=False)
        if not _DTYPE.fullmatch(little.dtype.str):
            raise LoweringError(f"an array of type {value.dtype} cannot be written as bytes; give one of numbers")
        data = little.tobytes() if little.nbytes < LONG else np.ascontiguousarray(little).data.cast("B")
        return [little.dtype.str, list(value.shape), self._bytes(data)]

    def _bytes(self, data: Buffer) -> Any:
        if len(data) < LONG:
            return data
        self.long.append(data)
        return [_LONG, len(self.long) - 1]

    def _dataclass(self, value: Any) -> list[Any]:
        named = {field.name: self.pack(getattr(value, field.name)) for field in fields(value) if field.init}
        return [type(value).__name__, named]


class _Reader:
    def __init__(self, long: Sequence[memoryview]) -> None:
        self.objects: list[Any] = []
        self.long = long

    def unpack(self, packed: Any) -> Any:
        if not isinstance(packed, list):
            if isinstance(packed, dict):
                raise ValueError("a bare mapping")
            return packed
        kind, *items = packed
        if kind == _TUPLE:
            return tuple(map(self.unpack, items))
        if kind == _LIST:
            return list(map(self.unpack, items))
        if kind == _MAPPING:
            return {self.unpack(key): self.unpack(item) for key, item in items}
        (number,) = items
        if kind not in (_SHARED, _LONG) or type(number) is not int or number < 0:
            raise ValueError(f"a list of kind {kind!r}")
        return self.objects[number] if kind == _SHARED else bytes(self.long[number])

    def shared(self, packed: Any) -> Any:
        if len(packed) == 3:
            dtype, shape, data = packed
            if not _DTYPE.fullmatch(dtype) or any(type(n) is not int or n < 0 for n in shape):
                raise ValueError(f"an array of type {dtype!r} and shape {shape}")
            if isinstance(data, list):
                kind, number = data
                if kind != _LONG or type(number) is not int or number < 0:
                    raise ValueError(f"an array of a list of kind {kind!r}")
                data = self.long[number]
            return np.frombuffer(data, np.dtype(dtype)).reshape(shape)
        name, named = packed
        kind, hints = CLASSES[name], _hints(name)
        return kind(**{field: _conform(self.unpack(item), hints[field]) for field, item in named.items()})


@cache
def _hints(name: str) -> dict[str, Any]:
    return get_type_hints(CLASSES[name])


def _conform(value: Any, hint: Any) -> Any:
    """The value if it is of the type that an annotation says; TypeError otherwise."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        for choice in arguments:
            try:
                return _conform(value, choice)
            except TypeError:
                pass
    elif origin is tuple and isinstance(value, tuple):
        if arguments[1:] == (...,):
            return tuple(_conform(item, arguments[0]) for item in value)
        if len(value) == len(arguments):
            return tuple(_conform(item, each) for item, each in zip(value, arguments, strict=True))
    elif origin is list and isinstance(value, list):
        return [_conform(item, arguments[0]) for item in value]
    elif origin is Counter and isinstance(value, dict):
        return Counter(_conform(value, dict[arguments[0], int]))  # type: ignore[valid-type]
    elif origin in (dict, Mapping) and isinstance(value, dict):
        key, item = arguments
        return {_conform(k, key): _conform(v, item) for k, v in value.items()}
    elif origin is np.ndarray:
        if isinstance(value, np.ndarray):
            return value
    elif hint is float:
        if type(value) in (int, float):  # as annotations have it, an integer is a float
            return value
    elif type(value) is hint:
        return value
    raise TypeError(f"a value of type {type(value).__name__} where {hint} belongs")
