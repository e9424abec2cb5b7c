"""From a matrix to its cells: one configuration each, named by a digest of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hefw.bench.matrix import Matrix, Values, several
from hefw.config import Choice, Config
from hefw.core.errors import ConfigError
from hefw.plugins import KINDS

#: hefw itself, or the paper's own implementation of its update step (`hefw.bench.published`).
HEFW = "hefw"
DIGEST_LENGTH = 16
#: What every cell is told by, whether it varies or not.
ALWAYS = ("backend", "strategy", "model")


@dataclass(frozen=True)
class Cell:
    """One combination. `way` is 'hefw', or 'published full', 'published partial' or 'published sparse'."""

    config: Config
    way: str = HEFW

    @cached_property
    def digest(self) -> str:
        """Of all that fixes what a cell does, seed aside."""
        text = json.dumps(self.key, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]

    @property
    def key(self) -> dict[str, Any]:
        """What the digest is of."""
        values = self.config.to_dict()
        return {key: value for key, value in values.items() if key not in ("seed", "out")} | {"way": self.way}

    @cached_property
    def facts(self) -> dict[str, str]:
        """Every setting as text, by the key that a matrix has for it."""
        values = self.config.to_dict()
        found: dict[str, str] = {kind: text_of(getattr(self.config, kind)) for kind in KINDS}
        if self.way != HEFW:
            found["strategy"] = found["backend"] = self.way
        for key, value in values.items():
            if key in (*KINDS, "seed", "out", "twin"):
                continue
            if key == "params":
                found |= {f"params.{name}": text_of(item) for name, item in value.items()}
            else:
                found[key] = text_of(value)
        return found


def text_of(value: Any) -> str:
    """A value in few characters: `min_distortion (threshold 0.1)`, `10`, `auto`."""
    if isinstance(value, Choice):
        options = ", ".join(f"{name} {text_of(item)}" for name, item in value.options.items())
        return f"{value.name} ({options})" if options else value.name
    if value is None:
        return "default"
    return value if isinstance(value, str) else json.dumps(value)


def expand(matrix: Matrix) -> tuple[Cell, ...]:
    """The cells of a matrix in its order, those of `include` last.

    Raises:
        ConfigError: an exclude that leaves out nothing, or everything, or what include adds; the same cell twice; an
            entry of include that does not say which of an axis' values it has.
    """
    try:
        return _expanded(matrix)
    except ConfigError as error:
        raise ConfigError(f"{matrix.source}: {error}" if matrix.source else str(error)) from None


def _expanded(matrix: Matrix) -> tuple[Cell, ...]:
    product = list(several(matrix.axes)) if matrix.axes else []
    unused = set(range(len(matrix.exclude)))
    kept: list[Values] = []
    for values in product:
        matched = {n for n, entry in enumerate(matrix.exclude) if _matches(entry, values)}
        unused -= matched
        if not matched:
            kept.append(values)
    if unused:
        number = min(unused)
        raise ConfigError(
            f"exclude {number + 1} {_shown(matrix.exclude[number])} leaves out no cell; correct it, or remove it"
        )
    if product and not kept and not matrix.include:
        raise ConfigError(f"exclude leaves out all of {len(product)} cells; leave some of them in")
    found: dict[str, str] = {}
    cells: list[Cell] = []
    for where, values in (*(("the axes", item) for item in kept), *_included(matrix)):
        for number, entry in enumerate(matrix.exclude, 1):
            if where != "the axes" and _matches(entry, values):
                raise ConfigError(
                    f"{where} {_shown_values(values)} is a cell that exclude {number} leaves out; remove one of the two"
                )
        cell = Cell(_config(values))
        if cell.digest in found:
            raise ConfigError(
                f"{where} gives a cell that {found[cell.digest]} gave already: {label(cell.facts, ALWAYS)}; remove one"
            )
        found[cell.digest] = where
        cells.append(cell)
    return (*cells, *_published(matrix, cells))


def varying(cells: tuple[Cell, ...]) -> tuple[str, ...]:
    """The keys that tell cells apart, in the order of a configuration; backend, strategy and model are always there."""
    if not cells:
        return ALWAYS
    return tuple(key for key in cells[0].facts if key in ALWAYS or len({cell.facts[key] for cell in cells}) > 1)


def label(facts: Mapping[str, str], keys: tuple[str, ...]) -> str:
    """A cell in words: the names of its plugins, and what else tells it apart."""
    words: list[str] = []
    for key in keys:
        text = facts[key] if key in (*KINDS, "protocol") else f"{key.rpartition('.')[2].replace('_', ' ')} {facts[key]}"
        if text not in words:  # a published way is backend and strategy in one
            words.append(text)
    return ", ".join(words)


def _config(values: Values) -> Config:
    """The configuration of one combination of values."""
    given: dict[str, Any] = {}
    for key, value in values.items():
        if "." not in key:
            given[key] = dict(value) if key == "params" else value
    for key, value in values.items():
        kind, dot, option = key.partition(".")
        if not dot:
            continue
        if kind == "params":
            given.setdefault("params", {})[option] = value
        else:
            choice: Choice = given.get(kind, getattr(Config(), kind))
            given[kind] = Choice(choice.name, {**choice.options, option: value})
    return Config(**given)


def _matches(entry: Mapping[str, tuple[Any, ...]], values: Values) -> bool:
    """Whether an entry of exclude means a combination: each of its keys has one of the values that it names."""
    config = _config(values)
    return all(any(_same(key, wanted, config) for wanted in several_) for key, several_ in entry.items())


def _same(key: str, wanted: Any, config: Config) -> bool:
    kind, dot, option = key.partition(".")
    if kind in KINDS:
        choice: Choice = getattr(config, kind)
        if dot:
            return bool(option in choice.options and choice.options[option] == wanted)
        return bool(choice.name == wanted.name and wanted.options.items() <= choice.options.items())
    if dot:
        return bool(getattr(config.params, option) == wanted)
    if key == "params":
        return all(config.to_dict()["params"][name] == value for name, value in wanted.items())
    return bool(getattr(config, key) == wanted)


def _included(matrix: Matrix) -> Iterator[tuple[str, Values]]:
    """The cells that include adds; what an entry does not name it has from the axes, where these have one value."""
    for number, entry in enumerate(matrix.include, 1):
        where = f"include {number}"
        completed = dict(entry)
        for key, values in matrix.axes.items():
            kind, dot, _ = key.partition(".")
            if key in entry or (dot and kind in entry):
                continue
            if len(values) > 1:
                raise ConfigError(
                    f"{where} names no {key}, of which the matrix has {len(values)}; name one of them: "
                    f"{', '.join(map(text_of, map(_jsonable, values)))}"
                )
            completed[key] = values
        for combination in several(completed):
            yield where, combination


def _published(matrix: Matrix, cells: list[Cell]) -> Iterator[Cell]:
    """The paper's own ways, once for each setting that differs in more than backend, strategy and parameters."""
    seen: set[str] = set()
    for way in matrix.settings.published:
        for cell in cells:
            config = Config(
                model=cell.config.model,
                scheduler=cell.config.scheduler,
                steps=cell.config.steps,
                labels=cell.config.labels,
                protocol="update-only",
                noise_prediction="plaintext",
            )
            made = Cell(config, f"published {way}")
            if made.digest not in seen:
                seen.add(made.digest)
                yield made


def _jsonable(value: Any) -> Any:
    return value if isinstance(value, (Choice, str, int, float, type(None))) else str(value)


def _shown(entry: Mapping[str, tuple[Any, ...]]) -> str:
    parts = (f"{key}: {' or '.join(text_of(_jsonable(item)) for item in values)}" for key, values in entry.items())
    return "{" + ", ".join(parts) + "}"


def _shown_values(values: Values) -> str:
    return _shown({key: (value,) for key, value in values.items()})
