"""A comparison's matrix: axes, their values, what is left out or added, repeats, seeds and limits, from a YAML file.

A key of the file is a key of a run's configuration (`backends` and the like may be written for `backend`), an entry of
`params` (`params.precision_db`), or an option of a plugin (`strategy.threshold`). A list is an axis with one value an
entry; anything else is one value for all cells. Whatever is wrong is a `ConfigError` of one line.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, ValidationError

from hefw import plugins
from hefw.config import MAX_SEED, Choice, Config, Params, read_mapping, resolve
from hefw.core.errors import ConfigError, suggest
from hefw.plugins import KINDS

#: Axes that read better in the plural, by name.
PLURALS = {
    "backends": "backend",
    "strategies": "strategy",
    "protocols": "protocol",
    "models": "model",
    "schedulers": "scheduler",
}
#: Keys of a run that a comparison sets itself.
OWN = {"seed": "write seeds: [0, 1]", "out": "name the folder by --out", "twin": "every cell has its twin"}
MOST_CELLS = 200
MOST_REPEATS = 1000
PRESETS = Path(__file__).with_name("presets")

#: Values by key, in the order of the file.
Values = dict[str, Any]


class Limits(BaseModel):
    """What one run of a cell may take, all its processes together."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seconds: float = Field(
        default=3600.0, gt=0, le=1e6, strict=True, allow_inf_nan=False, description="a number of seconds above 0"
    )
    memory_gb: float | None = Field(
        default=None,
        gt=0,
        le=1e5,
        strict=True,
        allow_inf_nan=False,
        description="a number of GB (10^9 bytes) above 0, or null",
    )


class Settings(BaseModel):
    """What a matrix says besides its axes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str = Field(default="", max_length=200, description="text")
    repeats: Annotated[StrictInt, Field(ge=1, le=MOST_REPEATS)] = Field(
        default=3, description=f"an integer from 1 to {MOST_REPEATS}"
    )
    seeds: tuple[Annotated[StrictInt, Field(ge=0, le=MAX_SEED)], ...] = Field(
        default=(0,), min_length=1, description="a list of integers from 0 to 2^63 - 1"
    )
    limits: Limits = Field(default=Limits(), description="a mapping of seconds, memory_gb")
    audit: Annotated[StrictInt, Field(ge=2, le=10_000)] | None = Field(
        default=None, description="a number of pictures to attack from 2 to 10,000, or null for no audit"
    )
    profile: StrictBool = Field(
        default=False, description="true (the server's operations are timed once, in a run of their own), or false"
    )
    reports: StrictBool = Field(default=True, description="true, or false (no page and pictures of each cell's own)")
    include: tuple[dict[str, Any], ...] = Field(default=(), description="a list of mappings")
    exclude: tuple[dict[str, Any], ...] = Field(default=(), description="a list of mappings")
    published: tuple[str, ...] = Field(default=(), description="a list of full, partial, sparse")


@dataclass(frozen=True)
class Matrix:
    """A valid matrix: `axes` maps keys to their values, all of which a configuration takes."""

    axes: Mapping[str, tuple[Any, ...]]
    include: tuple[Mapping[str, tuple[Any, ...]], ...] = ()
    exclude: tuple[Mapping[str, tuple[Any, ...]], ...] = ()
    settings: Settings = field(default_factory=Settings)
    source: str = ""  # what errors call it: its file

    @property
    def size(self) -> int:
        """Cells before anything is left out."""
        more = (math.prod(map(len, entry.values())) for entry in self.include)
        return math.prod(map(len, self.axes.values())) * (1 + len(self.settings.published)) + sum(more)

    def repeated(self, repeats: int) -> Matrix:
        """The same with another number of repeats."""
        return replace(self, settings=self.settings.model_copy(update={"repeats": repeats}))


def presets() -> list[str]:
    """The names of the matrices that come with hefw."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def preset(name: str) -> Path:
    """The file of one of them; ConfigError for a name that is none."""
    if name not in presets():
        raise ConfigError(f"unknown preset {name!r}; {suggest(name, presets())}")
    return PRESETS / f"{name}.yaml"


def load(path: Path, most_cells: int = MOST_CELLS) -> Matrix:
    """Read a matrix from a YAML or TOML file.

    Raises:
        ConfigError: no such file, malformed, an unknown key, plugin or option, a value that no run takes, the same
            value twice, nothing to compare, or more than `most_cells` cells.
    """
    try:
        found = _matrix(read_mapping(path, "matrix", "backends: [tenseal, openfhe]"), most_cells)
    except ConfigError as error:
        text = str(error)
        raise ConfigError(text if text.startswith("matrix ") else f"matrix {str(path)!r}: {text}") from None
    return replace(found, source=f"matrix {str(path)!r}")


def parse(values: Mapping[str, Any], most_cells: int = MOST_CELLS) -> Matrix:
    """The same from a mapping."""
    return _matrix(values, most_cells)


def _matrix(values: Mapping[str, Any], most_cells: int) -> Matrix:
    given = {str(key): value for key, value in values.items()}
    settings = _settings({key: given.pop(key) for key in Settings.model_fields if key in given})
    axes = _entry(given, "")
    if not axes and not settings.include:
        raise ConfigError(
            "there is nothing to compare; name an axis and its values, for example backends: [tenseal, openfhe]"
        )
    include = tuple(_entry(entry, f"include {n}: ") for n, entry in enumerate(settings.include, 1))
    exclude = tuple(_entry(entry, f"exclude {n}: ") for n, entry in enumerate(settings.exclude, 1))
    for number, entry in enumerate((*include, *exclude), 1):
        if not entry:
            kind, place = ("include", number) if number <= len(include) else ("exclude", number - len(include))
            raise ConfigError(f"{kind} {place} is empty; name what it is about, for example {{backend: tenseal}}")
    matrix = Matrix(axes, include, exclude, settings)
    if matrix.size > most_cells:
        factors = " x ".join(f"{len(axis)} {key}" for key, axis in axes.items() if len(axis) > 1)
        raise ConfigError(
            f"{matrix.size:,} cells ({factors}) are more than {most_cells:,}; name fewer values, or allow them by "
            f"--most-cells {matrix.size}"
        )
    _check_options(matrix)
    return matrix


def _settings(values: dict[str, Any]) -> Settings:
    try:
        found = Settings(**values)
    except ValidationError as error:
        raise ConfigError(_line(error)) from None
    seeds = sorted(found.seeds)
    for one, other in itertools.pairwise(seeds):
        if one == other:
            raise ConfigError(f"seeds: {one} is there twice; name it once")
    for way in found.published:
        if way not in ("full", "partial", "sparse"):
            raise ConfigError(f"published: {suggest(way, ('full', 'partial', 'sparse'))}; {way!r} is none of them")
    return found


def _entry(values: Mapping[Any, Any], where: str) -> dict[str, tuple[Any, ...]]:
    """Keys and their checked values, of the matrix itself or of one entry of include or exclude."""
    found: dict[str, tuple[Any, ...]] = {}
    for name, value in values.items():
        key = PLURALS.get(str(name), str(name))
        _check_key(str(name), key, where)
        if key in found:
            raise ConfigError(f"{where}{key!r} is given twice, as {name!r} too; leave one of them out")
        several = value if isinstance(value, list) else [value]
        if not several:
            raise ConfigError(f"{where}{name}: there is no value; name one at least, or leave the key out")
        checked = [_value(key, item, where) for item in several]
        for place, item in enumerate(checked):
            if item in checked[:place]:
                raise ConfigError(f"{where}{name}: {several[place]!r} is there twice; name it once")
        found[key] = tuple(checked)
    return found


def _check_key(name: str, key: str, where: str) -> None:
    kind, dot, option = key.partition(".")
    if key in OWN:
        raise ConfigError(f"{where}{name!r} cannot be an axis: {OWN[key]}")
    if not dot and key in Config.model_fields:
        return
    if dot and kind in KINDS and option:
        return  # whether a plugin has it is checked with the plugins at hand
    if dot and kind == "params":
        if option in Params.model_fields:
            return
        raise ConfigError(f"{where}unknown axis {name!r}; {suggest(option, Params.model_fields)}")
    known = [*PLURALS, *(field for field in Config.model_fields if field not in (*PLURALS.values(), *OWN))]
    extra = [] if where else list(Settings.model_fields)
    raise ConfigError(f"{where}unknown axis {name!r}; {suggest(key, [*known, *extra])}")


def _value(key: str, value: Any, where: str) -> Any:
    """A value as a configuration holds it; ConfigError if no run takes it."""
    kind, dot, option = key.partition(".")
    if dot and kind in KINDS:
        return value
    try:
        if kind in KINDS:
            choice: Choice = getattr(Config(**{kind: value}), kind)
            resolve(kind, choice) if choice.options else plugins_has(kind, choice.name)
            return choice
        if dot:
            return getattr(Config(params={option: value}).params, option)
        if key == "params":  # as given: what it leaves out is not fixed by it
            Config(params=value)
            return value
        return getattr(Config(**{key: value}), key)
    except ConfigError as error:
        raise ConfigError(f"{where}{error}") from None


def plugins_has(kind: Any, name: str) -> None:
    """ConfigError unless a plugin of that name is registered. Options it must be given may come from another axis."""
    names = plugins.registry().names(kind)
    if name not in names:
        raise ConfigError(f"unknown {kind} {name!r}; {suggest(name, names)}")


def _check_options(matrix: Matrix) -> None:
    """Every option of a plugin that is named is one of some plugin that is named."""
    default = Config()
    entries = [matrix.axes, *matrix.include]
    for entry in (*entries, *matrix.exclude):
        for key in entry:
            kind, dot, option = key.partition(".")
            if not dot or kind not in KINDS:
                continue
            names = {choice.name for other in entries for choice in other.get(kind, ())}
            names = names or {getattr(default, kind).name}
            known = {field for name in names for field in plugins.registry().entry(kind, name).options.model_fields}
            if option not in known:
                raise ConfigError(
                    f"unknown axis {key!r}: no {kind} of this matrix ({', '.join(sorted(names))}) has the option "
                    f"{option!r}; {suggest(option, known)}"
                )


def _line(error: ValidationError) -> str:
    """The first failure of the settings, as one line."""
    first = error.errors(include_url=False)[0]
    path = [str(part) for part in first["loc"]]
    if path[0] == "limits" and len(path) > 1:
        name, info = f"limits.{path[1]}", Limits.model_fields.get(path[1])
        if info is None:
            return f"unknown key {name!r}; {suggest(path[1], Limits.model_fields)}"
    else:
        name, info = path[0], Settings.model_fields[path[0]]
    text = " ".join(repr(first["input"]).split())
    return f"{name}: {text if len(text) <= 60 else text[:57] + '...'} is not allowed; allowed: {info.description}"


def several(axes: Mapping[str, Sequence[Any]]) -> Iterator[Values]:
    """All combinations of an entry's values, the last key changing fastest."""
    if not axes:
        yield {}
        return
    (key, *rest) = axes
    for value in axes[key]:
        for others in several({name: axes[name] for name in rest}):
            yield {key: value, **others}
