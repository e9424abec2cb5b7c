"""A run's configuration: one frozen object, from Python, a YAML or TOML file, or command-line options.

Whatever is wrong with it is a `ConfigError` of one line that names the value, what is allowed, and what to write.
"""

from __future__ import annotations

import json
import operator
import os
import re
import shlex
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    PlainSerializer,
    PlainValidator,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationError,
)

from hefw import plugins
from hefw.core.errors import ConfigError, suggest
from hefw.core.params import MAXIMUM_PRIME_BITS, MINIMUM_PRIME_BITS
from hefw.hookspecs import Entry, Options
from hefw.plugins import KINDS, Kind, Registry

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_LABELS = 65_536
MAX_LABEL = 999_999_999
MAX_STEPS = 1000
MAX_THREADS, AUTO_THREADS = 64, 8
MAX_SEED = 2**63 - 1
KEY_SET_NAME = "[A-Za-z0-9][A-Za-z0-9._-]{0,63}"

_LABELS_ALLOWED = "labels and ranges of labels, separated by commas"


def parse_labels(value: object) -> tuple[int, ...]:
    """Labels from text ("0-9,0-5,7"), one integer, or integers. Syntax only: `check_labels` knows the model's range.

    Raises:
        ConfigError: not of these forms, negative, a range that runs backwards, none, or more than 65,536 labels.
    """
    try:
        return _labels(value)
    except ValueError as error:
        raise ConfigError(f"labels: {error}") from None


def format_labels(labels: Iterable[int]) -> str:
    """The shortest text that `parse_labels` reads back as these labels.

    >>> format_labels((0, 1, 2, 0, 1, 7))
    '0-2,0-1,7'
    """
    runs: list[list[int]] = []
    for label in labels:
        if runs and label == runs[-1][1] + 1:
            runs[-1][1] = label
        else:
            runs.append([label, label])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def check_labels(labels: Iterable[int], count: int, model_name: str) -> None:
    """Raise ConfigError naming the first label that a model with labels 0..count-1 does not have."""
    for label in labels:
        if not 0 <= label < count:
            raise ConfigError(
                f"label {label} is not one of model {model_name!r}; allowed 0-{count - 1}; "
                f"for example labels: 0-{count - 1}"
            )


def _labels(value: object) -> tuple[int, ...]:
    if isinstance(value, str):
        labels = [label for part in value.split(",") for label in _label_range(part.strip(), value)]
    elif isinstance(value, bool) or not (isinstance(value, Iterable) or hasattr(value, "__index__")):
        raise ValueError(f"{_show(value)} is not allowed; allowed: {_LABELS_ALLOWED}; for example labels: 0-9,0-5")
    else:
        labels = [_label(item) for item in (value if isinstance(value, Iterable) else [value])]
    if not 1 <= len(labels) <= MAX_LABELS:
        raise ValueError(f"{len(labels)} labels are not allowed; allowed: 1 to {MAX_LABELS}, one an image")
    return tuple(labels)


def _prompts(value: object) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else list(value) if isinstance(value, (list, tuple)) else [value]
    for text in texts:
        if not isinstance(text, str) or not text.strip() or "\x00" in text:
            raise ValueError(
                f"{_show(text)} is not allowed; allowed: text, or a list of texts, one an image; for example "
                "prompt: a thin seven"
            )
    if len(texts) > MAX_LABELS:
        raise ValueError(f"{len(texts)} prompts are not allowed; allowed: up to {MAX_LABELS}, one an image")
    return tuple(texts)


def _label_range(part: str, whole: str) -> range:
    match = re.fullmatch(r"([0-9]{1,9})(?:\s*-\s*([0-9]{1,9}))?", part)
    if not match:
        raise ValueError(
            f"{_show(part)} in {_show(whole)} is not a label; allowed: {_LABELS_ALLOWED}; for example labels: 0-9,0-5"
        )
    first, last = int(match[1]), int(match[2] or match[1])
    if last < first:
        raise ValueError(f"range {part!r} runs backwards; write {last}-{first}")
    if last - first >= MAX_LABELS:
        raise ValueError(f"range {part!r} has {last - first + 1} labels; allowed: 1 to {MAX_LABELS}, one an image")
    return range(first, last + 1)


def _label(item: object) -> int:
    if not isinstance(item, bool) and hasattr(item, "__index__") and 0 <= (label := operator.index(item)) <= MAX_LABEL:
        return label
    raise ValueError(f"{_show(item)} is not a label; allowed: integers from 0; for example labels: [0, 1, 2]")


@dataclass(frozen=True)
class Choice:
    """A plugin by name, with its options: `name` or `{name: ..., option: ...}` in a file."""

    name: str
    options: Mapping[str, JsonValue] = field(default_factory=dict)

    @classmethod
    def parse(cls, value: object) -> Choice:
        """From a name, a mapping with the key `name`, or a Choice. ValueError (one line) for anything else."""
        if isinstance(value, cls):
            return value
        given = {"name": value} if isinstance(value, str) else value
        if not isinstance(given, Mapping) or not isinstance(given.get("name"), str) or not given["name"]:
            raise ValueError(f"{_show(value)} is not allowed; allowed: a name, or {{name: ..., option: ...}}")
        rest = {key: option for key, option in given.items() if key != "name"}
        try:
            return cls(given["name"], json.loads(json.dumps(rest, allow_nan=False)))
        except (TypeError, ValueError, RecursionError):
            raise ValueError(
                f"options {_show(rest)} are not allowed; allowed: finite numbers, text, true, false, null, lists and "
                "mappings of them"
            ) from None

    def to_json(self) -> str | dict[str, JsonValue]:
        """The name alone, or the mapping."""
        return {"name": self.name, **self.options} if self.options else self.name


REFRESHES = ("client", "none", "bootstrap")
_REFRESH_ALLOWED = "client, none or bootstrap, or {name: client, every: 2}"


@dataclass(frozen=True)
class Refresh:
    """Who gives ciphertexts their levels back, and after how many steps.

    'client': the key holder decrypts and encrypts again. 'none': nobody, all steps fit one modulus chain. 'bootstrap':
    the server, on ciphertext. In a file `name`, or `{name: ..., every: ...}`; 'none' takes no `every`. `every` divides
    the steps of the run, which the run checks.
    """

    name: str = "client"
    every: int = 1

    @classmethod
    def parse(cls, value: object) -> Refresh:
        """From a name, a mapping with `name` ('client' if left out) and `every`, or a Refresh.

        ValueError (one line) for anything else.
        """
        if isinstance(value, cls):
            return value
        given: Mapping[Any, Any] = value if isinstance(value, Mapping) else {"name": value}
        name, every = given.get("name", "client"), given.get("every", 1)
        if name not in REFRESHES or set(given) - {"name", "every"}:
            raise ValueError(f"{_show(value)} is not allowed; allowed: {_REFRESH_ALLOWED}; for example refresh: client")
        if isinstance(every, bool) or not isinstance(every, int) or not 1 <= every <= MAX_STEPS:
            raise ValueError(
                f"every {_show(every)} is not allowed; allowed: an integer from 1 to {MAX_STEPS} that divides "
                "the steps; for example {name: client, every: 2}"
            )
        if name == "none" and "every" in given:
            raise ValueError("none does all steps from one message; leave every out, or use {name: client, every: 2}")
        return cls(name, every)

    def to_json(self) -> str | dict[str, JsonValue]:
        """The name alone, or the mapping."""
        return self.name if self.every == 1 else {"name": self.name, "every": self.every}

    def steps_a_message(self, steps: int) -> int:
        """Steps between two refreshes, of so many in all."""
        return steps if self.name == "none" else self.every


RefreshField = Annotated[
    Refresh, PlainValidator(Refresh.parse), PlainSerializer(Refresh.to_json, return_type=str | dict[str, Any])
]
ChoiceField = Annotated[
    Choice, PlainValidator(Choice.parse), PlainSerializer(Choice.to_json, return_type=str | dict[str, Any])
]
LabelsField = Annotated[tuple[int, ...], PlainValidator(_labels), PlainSerializer(format_labels, return_type=str)]
PromptsField = Annotated[tuple[str, ...], PlainValidator(_prompts), PlainSerializer(list, return_type=list[str])]
NoNul = Field(pattern=r"^[^\x00]*$")  # which no argument of a command holds
FilePath = Annotated[StrictStr, Field(min_length=1), NoNul]
Bits = Annotated[StrictInt, Field(ge=MINIMUM_PRIME_BITS, le=MAXIMUM_PRIME_BITS)]
BitList = Annotated[tuple[Bits, ...], Field(min_length=1, max_length=64)]


class Params(BaseModel):
    """CKKS parameters that the user fixes; what is None is chosen from the model's depth and the precision."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    precision_db: float = Field(
        default=60.0,
        ge=20,
        le=100,
        strict=True,
        allow_inf_nan=False,
        description="a PSNR against the plaintext twin from 20 to 100 (dB)",
        examples=[60],
    )
    ring_dimension: Literal[1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072] | None = Field(
        default=None, description="a power of two from 1024 to 131072, or null", examples=[16384]
    )
    modulus_bits: BitList | None = Field(
        default=None, description="a list of prime sizes from 20 to 60 (bits), or null", examples=["[60, 40, 40]"]
    )
    special_bits: BitList | None = Field(
        default=None, description="a list of prime sizes from 20 to 60 (bits), or null", examples=["[60]"]
    )


class Config(BaseModel):
    """One run. Unknown keys are refused; `Config(**config.to_dict()) == config`.

    Raises:
        ConfigError: one line that names the key, the value, what is allowed, and an example.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    backend: ChoiceField = Field(default=Choice("tenseal"), description="the HE library")
    strategy: ChoiceField = Field(default=Choice("full"), description="what of a latent is encrypted")
    model: ChoiceField = Field(default=Choice("digits"), description="the diffusion model")
    scheduler: ChoiceField = Field(default=Choice("auto"), description="the sampler")
    protocol: Literal["auto", "end-to-end", "update-only"] = Field(
        default="auto",
        description="end-to-end (the server evaluates the network), update-only (it adds up the scheduler's update) or "
        "auto (end-to-end where the model can)",
        examples=["update-only"],
    )
    noise_prediction: Literal["encrypted", "plaintext"] = Field(
        default="encrypted",
        description="encrypted, or plaintext (as HE-Diffusion was published; protocol update-only)",
        examples=["encrypted"],
    )
    refresh: RefreshField = Field(default=Refresh(), description=_REFRESH_ALLOWED, examples=["client"])
    labels: LabelsField = Field(default=(*range(10), *range(6)), description=_LABELS_ALLOWED, examples=["0-9,0-5"])
    prompt: PromptsField = Field(
        default=(), description="text, or a list of texts, one an image", examples=["a thin seven"]
    )
    negative_prompt: Annotated[StrictStr, NoNul] | None = Field(
        default=None, description="text of what the picture should not show, or null", examples=["blurred"]
    )
    guidance_scale: float | None = Field(
        default=None,
        ge=0,
        le=1000,
        strict=True,
        allow_inf_nan=False,
        description="a number from 0 (no guidance at 1 and below), or null (the model's own)",
        examples=[7.5],
    )
    init_image: FilePath | None = Field(
        default=None, description="the path of a picture to start from, or null", examples=["sketch.png"]
    )
    strength: float | None = Field(
        default=None,
        ge=0,
        le=1,
        strict=True,
        allow_inf_nan=False,
        description="how much of init_image is changed, from 0 to 1, or null (the model's own)",
        examples=[0.8],
    )
    mask: FilePath | None = Field(
        default=None,
        description="the path of a picture that is white where init_image is drawn anew, or null",
        examples=["mask.png"],
    )
    steps: Annotated[StrictInt, Field(ge=1, le=MAX_STEPS)] | None = Field(
        default=None, description=f"an integer from 1 to {MAX_STEPS}, or null (the model's own)", examples=[10]
    )
    batch: Annotated[StrictInt, Field(ge=1)] | Literal["auto"] = Field(
        default="auto",
        description="the most images in one request, from 1, or auto (what costs least for all of them)",
        examples=["auto"],
    )
    server_threads: Annotated[StrictInt, Field(ge=1, le=MAX_THREADS)] | Literal["auto"] = Field(
        default="auto",
        description=f"an integer from 1 to {MAX_THREADS}, or auto (as many as there are processors, at most "
        f"{AUTO_THREADS})",
        examples=["auto"],
    )
    seed: StrictInt = Field(default=0, ge=0, le=MAX_SEED, description="an integer from 0 to 2^63 - 1", examples=[0])
    params: Params = Field(
        default=Params(),
        description=f"a mapping of {', '.join(sorted(Params.model_fields))}",
        examples=["{precision_db: 60}"],
    )
    keys: Annotated[StrictStr, Field(pattern=f"^{KEY_SET_NAME}$")] | None = Field(
        default=None,
        description="the name of a key set of `hefw keys` (a letter or digit, then letters, digits, '.', '_' and '-', "
        "at most 64), or null (new keys for this run)",
        examples=["alice"],
    )
    out: FilePath = Field(default="hefw-run", description="the path of a folder", examples=["hefw-run"])
    twin: StrictBool = Field(
        default=True, description="true, or false (no plaintext run to compare with)", examples=["true"]
    )
    allow_insecure: StrictBool = Field(default=False, description="true or false", examples=["false"])

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(_line(error)) from None

    @property
    def folder(self) -> Path:
        """`out` as a path, with `~` expanded."""
        return Path(self.out).expanduser()

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values of every key. Keys and ciphertext are never in it; labels and seed are: it stays with the
        key holder."""
        return self.model_dump(mode="json")

    def resolve(self, registry: Registry | None = None) -> dict[Kind, Resolved]:
        """The registered entry and the checked options of the backend, strategy, model and scheduler."""
        found: dict[Kind, Resolved] = {}
        for kind in KINDS:
            choice: Choice = getattr(self, kind)
            try:
                found[kind] = resolve(kind, choice, registry)
            except ConfigError as error:
                raise ConfigError(f"{error}{self._elsewhere(kind, choice, registry)}") from None
        return found

    def _elsewhere(self, kind: Kind, choice: Choice, registry: Registry | None) -> str:
        """The tail of a message about an unknown option, where another chosen plugin has one of that name."""
        if (kind, choice.name) == ("scheduler", "auto") and choice.options:
            return "; options are for a scheduler by name, such as --scheduler ddim"
        registry = registry or plugins.registry()
        options = {
            other: registry.entry(other, name).options.model_fields
            for other in KINDS
            if (name := getattr(self, other).name) in registry.names(other)
        }
        for option in choice.options:
            for other in options:
                if option in options[other] and option not in options.get(kind, choice.options):
                    name = getattr(self, other).name
                    return f"; {other} {name!r} has {option!r}: write --option {other}.{option}=VALUE"
        return ""

    @property
    def threads(self) -> int:
        """How many threads of the server may work on an operation together."""
        from hefw.core.process import processors  # a configuration alone needs no other process

        return min(AUTO_THREADS, processors()) if self.server_threads == "auto" else self.server_threads

    def command(self, *command: str) -> str:
        """The shell command that repeats this run, or another of the same options (randomness of encryption differs,
        as it must)."""
        default = Config()
        words = ["hefw", *(command or ("generate",))]
        if not self.prompt or self.labels != default.labels:
            words += ["--labels", format_labels(self.labels)]
        words += [] if self.steps is None else ["--steps", str(self.steps)]
        words += ["--seed", str(self.seed)]
        for kind in KINDS:
            choice: Choice = getattr(self, kind)
            words += [f"--{kind}", choice.name]
            for name, value in choice.options.items():
                words += ["--option", f"{kind}.{name}={_option_text(value)}"]
        if self.refresh != default.refresh:
            words += ["--refresh", self.refresh.name]
            words += ["--every", str(self.refresh.every)] if self.refresh.every > 1 else []
        for text in self.prompt:
            words += ["--prompt", text]
        for key in (
            "protocol",
            "noise_prediction",
            "negative_prompt",
            "guidance_scale",
            "init_image",
            "strength",
            "mask",
            "batch",
            "server_threads",
            "keys",
            "out",
        ):
            if getattr(self, key) != getattr(default, key):
                words += [f"--{key.replace('_', '-')}", str(getattr(self, key))]
        words += [] if self.twin else ["--no-twin"]
        for key, value in self.params.model_dump(mode="json", exclude_defaults=True).items():
            words += ["--param", f"{key}={_option_text(value)}"]
        if self.allow_insecure:
            words.append("--allow-insecure")
        return shlex.join(words)


@dataclass(frozen=True)
class Resolved:
    """A chosen plugin: its entry in the registry, and its options as an instance of `entry.options`."""

    kind: Kind
    entry: Entry
    options: Options


def resolve(kind: Kind, choice: Choice, registry: Registry | None = None) -> Resolved:
    """Check a choice against the registry (that of this process by default) and the entry's declared options.

    Raises:
        ConfigError: unknown name or option (with the nearest known one), or an option's value that is not allowed.
    """
    registry = registry or plugins.registry()
    names = registry.names(kind)
    if choice.name not in names:
        broken = "; some plugins failed to load: see `hefw plugins`" if registry.broken else ""
        raise ConfigError(f"unknown {kind} {_show(choice.name)}; {suggest(choice.name, names)}{broken}")
    entry = registry.entry(kind, choice.name)
    try:
        return Resolved(kind, entry, entry.options.model_validate(dict(choice.options)))
    except ValidationError as error:
        raise ConfigError(f"{kind} {choice.name!r}: {_option_line(error, entry.options)}") from None


def load(path: str | os.PathLike[str]) -> Config:
    """Read a configuration file: YAML (.yaml, .yml) or TOML (.toml), a mapping of some of Config's keys.

    Raises:
        ConfigError: missing, unreadable or malformed file (with the line), a key or a value that is not allowed.
    """
    values = read_mapping(path, "config", "steps: 10", " or none for the defaults")
    try:
        return Config(**{str(key): value for key, value in values.items()})
    except ConfigError as error:
        raise ConfigError(f"config {str(path)!r}: {error}") from None


def read_mapping(path: str | os.PathLike[str], what: str, example: str, otherwise: str = "") -> Mapping[Any, Any]:
    """The mapping that a YAML or TOML file holds; ConfigError, which calls the file `what`, if it holds none."""
    path = Path(path)
    readers = {".yaml": _read_yaml, ".yml": _read_yaml, ".toml": _read_toml}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ConfigError(f"{what} {str(path)!r} is of an unknown kind; allowed: {', '.join(readers)}")
    try:
        values = reader(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"{what} {str(path)!r} does not exist; give the path of a YAML or TOML file{otherwise and ',' + otherwise}"
        ) from None
    except OSError as error:
        raise ConfigError(f"{what} {str(path)!r} cannot be read: {error.strerror}; give a readable file") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{what} {str(path)!r} is not text; give a YAML or TOML file in UTF-8") from None
    except ValueError as error:
        raise ConfigError(f"{what} {str(path)!r} is malformed: {_one_line(str(error))}") from None
    if not isinstance(values, Mapping):
        raise ConfigError(
            f"{what} {str(path)!r} holds {_show(values)}; allowed: a mapping of keys to values; for example {example}"
        )
    return values


def merge(base: Config | str | os.PathLike[str] | None, overrides: Mapping[str, Any]) -> Config:
    """A configuration with some keys replaced: command-line options win over the file.

    Args:
        base: a Config, a file's path, or None for the defaults.
        overrides: values by key; None means not given. A mapping changes single entries of `params`, and without
            `name` single options of a plugin; any other value replaces the key's whole value.
    """
    config = Config() if base is None else base if isinstance(base, Config) else load(base)
    values = config.to_dict()
    for key, value in overrides.items():
        if value is None:
            continue
        if isinstance(value, Mapping) and "name" not in value and key in (*KINDS, "params", "refresh"):
            old = values[key]
            value = {**({"name": old} if isinstance(old, str) else old), **value}
        values[key] = value
    return Config(**values)


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice, where YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen and key.value != "<<":
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} is given twice", key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def _read_yaml(text: str) -> Any:
    try:
        values = yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ValueError(f"{line}{error.problem}; expected YAML such as steps: 10") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{error}; expected YAML such as steps: 10") from None
    return {} if values is None else values  # nothing but comments


def _read_toml(text: str) -> Any:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{error}; expected TOML such as steps = 10") from None


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _show(value: object) -> str:
    text = _one_line(repr(value))
    return text if len(text) <= 60 else f"{text[:57]}..."


def _option_text(value: object) -> str:
    """VALUE of KEY=VALUE: plain text where it cannot be taken for JSON, else JSON."""
    if isinstance(value, str):
        try:
            json.loads(value)
        except ValueError:
            return value
    return json.dumps(value)


def _line(error: ValidationError) -> str:
    """The first failure of a ValidationError of Config, as one line."""
    first = error.errors(include_url=False)[0]
    path = [str(part) for part in first["loc"]]
    key, info, known = path[0], Config.model_fields.get(path[0]), Config.model_fields
    if key == "params" and len(path) > 1:
        key, info, known = f"params.{path[1]}", Params.model_fields.get(path[1]), Params.model_fields
    if first["type"] == "extra_forbidden":
        return f"unknown key {_show(key)}; {suggest(key.removeprefix('params.'), known)}"
    if first["type"] == "value_error":
        return f"{key}: {first['ctx']['error']}"
    assert info is not None
    example = f"; for example {key.rpartition('.')[2]}: {info.examples[0]}" if info.examples else ""
    return f"{key}: {_show(first['input'])} is not allowed; allowed: {info.description}{example}"


def _option_line(error: ValidationError, model: type[Options]) -> str:
    """The first failure of a plugin's options, as one line; a union's alternatives are all named."""
    errors = error.errors(include_url=False)
    first = errors[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    if first["type"] == "extra_forbidden":
        return f"unknown option {name!r}; {suggest(name, model.model_fields)}"
    if first["type"] == "missing":
        return f"option {name!r} is missing; known options: {', '.join(sorted(model.model_fields))}"
    reasons = dict.fromkeys(
        _one_line(item["msg"].removeprefix("Value error, ")) for item in errors if item["loc"][:1] == first["loc"][:1]
    )
    reason = " or ".join(text[:1].lower() + text[1:] for text in reasons)
    if not first["loc"]:  # a rule about several options
        return f"options {_show(first['input'])} are not allowed: {reason}"
    return f"option {name!r} = {_show(first['input'])} is not allowed: {reason}"
