"""The configuration: what it accepts, what it refuses and in which words, and its round trips."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from cli_fakes import ThreadOptions, fake_registry
from hypothesis import given
from hypothesis import strategies as st

from hefw.config import (
    MAX_LABEL,
    MAX_LABELS,
    MAX_SEED,
    MAX_STEPS,
    Choice,
    Config,
    Params,
    Refresh,
    check_labels,
    format_labels,
    load,
    merge,
    parse_labels,
)
from hefw.core.errors import ConfigError
from hefw.plugins import Registry

names = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1).filter(lambda name: name != "name")
scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(scalars | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
label_lists = st.lists(st.integers(0, 20) | st.integers(0, MAX_LABEL), min_size=1, max_size=50)
bits = st.none() | st.lists(st.integers(20, 60), min_size=1, max_size=8)


refreshes = st.just(Refresh("none")) | st.builds(
    Refresh, st.sampled_from(["client", "bootstrap"]), st.just(1) | st.integers(1, MAX_STEPS)
)


def choices() -> st.SearchStrategy[Choice]:
    return st.builds(Choice, st.text(min_size=1), st.dictionaries(names, json_values, max_size=3))


texts = st.text().filter(lambda text: "\0" not in text)
prompts = texts.filter(lambda text: bool(text.strip()))


@st.composite
def configs(draw: st.DrawFn) -> Config:
    return Config(
        backend=draw(choices()),
        strategy=draw(choices()),
        model=draw(choices()),
        scheduler=draw(choices()),
        protocol=draw(st.sampled_from(["auto", "end-to-end", "update-only"])),
        noise_prediction=draw(st.sampled_from(["encrypted", "plaintext"])),
        refresh=draw(refreshes),
        labels=draw(label_lists | st.just(Config().labels)),
        prompt=draw(st.just([]) | st.lists(prompts, max_size=3)),
        negative_prompt=draw(st.none() | texts),
        guidance_scale=draw(st.none() | st.floats(0, 1000)),
        init_image=draw(st.none() | texts.filter(bool)),
        strength=draw(st.none() | st.floats(0, 1)),
        mask=draw(st.none() | texts.filter(bool)),
        steps=draw(st.integers(1, 1000)),
        batch=draw(st.just("auto") | st.integers(1, 10**6)),
        server_threads=draw(st.just("auto") | st.integers(1, 64)),
        seed=draw(st.integers(0, MAX_SEED)),
        params={
            "precision_db": draw(st.floats(20, 100)),
            "ring_dimension": draw(st.none() | st.sampled_from([2**k for k in range(10, 18)])),
            "modulus_bits": draw(bits),
            "special_bits": draw(bits),
        },
        out=draw(texts.filter(bool)),
        twin=draw(st.booleans()),
        allow_insecure=draw(st.booleans()),
    )


def refused(**values: Any) -> str:
    """The one line with which Config refuses these values."""
    with pytest.raises(ConfigError) as caught:
        Config(**values)
    return one_line(caught.value)


def one_line(error: BaseException) -> str:
    line = str(error)
    assert "\n" not in line
    assert len(line) < 400
    return line


# Labels


@given(label_lists)
def test_labels_round_trip(labels: list[int]) -> None:
    assert parse_labels(format_labels(labels)) == tuple(labels)


@given(st.text("0123456789-, x", max_size=12))
def test_labels_text_is_parsed_or_refused_in_one_line(text: str) -> None:
    refusal: ConfigError | None = None
    labels: tuple[int, ...] = ()
    try:
        labels = parse_labels(text)
    except ConfigError as error:
        refusal = error
    if refusal:
        assert one_line(refusal).startswith("labels: ")
    else:
        assert labels
        assert min(labels) >= 0


@pytest.mark.parametrize(
    ("given_value", "labels"),
    [
        ("0-3", (0, 1, 2, 3)),
        (" 0 - 2 , 5 ", (0, 1, 2, 5)),
        ("7", (7,)),
        ("3,3,3", (3, 3, 3)),
        (7, (7,)),
        ([2, 0], (2, 0)),
        (range(3), (0, 1, 2)),
        (np.array([4, 5]), (4, 5)),
    ],
)
def test_labels_forms(given_value: object, labels: tuple[int, ...]) -> None:
    assert parse_labels(given_value) == labels
    assert Config(labels=given_value).labels == labels


@pytest.mark.parametrize(
    ("given_value", "parts"),
    [
        ("0-x", ["'0-x'", "ranges", "labels: 0-9,0-5"]),
        ("", ["''", "labels: 0-9,0-5"]),
        ("1,,2", ["'' in '1,,2'"]),
        ("-1", ["'-1'", "labels: 0-9,0-5"]),
        ("9-0", ["'9-0'", "backwards", "write 0-9"]),
        ("0-99999999", ["'0-99999999'", "100000000 labels", f"1 to {MAX_LABELS}"]),
        ("0-60000,0-60000", ["120002 labels", f"1 to {MAX_LABELS}"]),
        ("²", ["'²'", "labels: 0-9,0-5"]),
        ([-1], ["-1", "integers from 0", "labels: [0, 1, 2]"]),
        ([1.5], ["1.5", "integers from 0"]),
        ([True], ["True", "integers from 0"]),
        (["1"], ["'1'", "integers from 0"]),
        ([], ["0 labels", "1 to"]),
        (None, ["None", "labels: 0-9,0-5"]),
        (True, ["True", "labels: 0-9,0-5"]),
        (2.5, ["2.5", "labels: 0-9,0-5"]),
    ],
)
def test_labels_refused(given_value: object, parts: list[str]) -> None:
    line = refused(labels=given_value)
    assert line.startswith("labels: ")
    for part in parts:
        assert part in line
    with pytest.raises(ConfigError) as caught:
        parse_labels(given_value)
    assert str(caught.value) == line


def test_check_labels_names_label_and_range() -> None:
    check_labels((0, 9), 10, "digits")
    with pytest.raises(ConfigError) as caught:
        check_labels((3, 11, 12), 10, "digits")
    assert one_line(caught.value) == "label 11 is not one of model 'digits'; allowed 0-9; for example labels: 0-9"


# Values


def test_defaults() -> None:
    config = Config()
    assert config.to_dict() == {
        "backend": "tenseal",
        "strategy": "full",
        "model": "digits",
        "scheduler": "auto",
        "protocol": "auto",
        "noise_prediction": "encrypted",
        "refresh": "client",
        "labels": "0-9,0-5",
        "prompt": [],
        "negative_prompt": None,
        "guidance_scale": None,
        "init_image": None,
        "strength": None,
        "mask": None,
        "steps": None,
        "batch": "auto",
        "server_threads": "auto",
        "seed": 0,
        "params": {"precision_db": 60.0, "ring_dimension": None, "modulus_bits": None, "special_bits": None},
        "keys": None,
        "out": "hefw-run",
        "twin": True,
        "allow_insecure": False,
    }
    assert len(config.labels) == 16
    assert config.params == Params()


STEPS = "allowed: an integer from 1 to 1000, or null (the model's own); for example steps: 10"


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"steps": 0}, f"steps: 0 is not allowed; {STEPS}"),
        ({"steps": 1001}, f"steps: 1001 is not allowed; {STEPS}"),
        ({"steps": "10"}, f"steps: '10' is not allowed; {STEPS}"),
        ({"steps": True}, f"steps: True is not allowed; {STEPS}"),
        ({"seed": -1}, "seed: -1 is not allowed; allowed: an integer from 0 to 2^63 - 1; for example seed: 0"),
        ({"seed": 2**63}, f"seed: {2**63} is not allowed; allowed: an integer from 0 to 2^63 - 1; for example seed: 0"),
        (
            {"batch": 0},
            "batch: 0 is not allowed; allowed: the most images in one request, from 1, or auto (what costs least "
            "for all of them); for example batch: auto",
        ),
        (
            {"protocol": "update"},
            "protocol: 'update' is not allowed; allowed: end-to-end (the server evaluates the network), update-only "
            "(it adds up the scheduler's update) or auto (end-to-end where the model can); for example protocol: ",
        ),
        (
            {"noise_prediction": "plain"},
            "noise_prediction: 'plain' is not allowed; allowed: encrypted, or plaintext (as HE-Diffusion was "
            "published; protocol update-only); for example noise_prediction: encrypted",
        ),
        ({"prompt": ""}, "prompt: '' is not allowed; allowed: text, or a list of texts, one an image; for example "),
        ({"prompt": ["a cat", " "]}, "prompt: ' ' is not allowed; allowed: text, or a list of texts"),
        ({"prompt": [3]}, "prompt: 3 is not allowed; allowed: text, or a list of texts"),
        ({"prompt": "a\0b"}, "prompt: 'a\\x00b' is not allowed; allowed: text, or a list of texts"),
        ({"prompt": ["a"] * 65_537}, "prompt: 65537 prompts are not allowed; allowed: up to 65536, one an image"),
        (
            {"negative_prompt": 3},
            "negative_prompt: 3 is not allowed; allowed: text of what the picture should not show",
        ),
        ({"negative_prompt": "a\0b"}, "negative_prompt: 'a\\x00b' is not allowed; allowed: text of what the picture"),
        (
            {"guidance_scale": -1.0},
            "guidance_scale: -1.0 is not allowed; allowed: a number from 0 (no guidance at 1 and below), or null (the "
            "model's own); for example guidance_scale: 7.5",
        ),
        ({"guidance_scale": 1001.0}, "guidance_scale: 1001.0 is not allowed; allowed: a number from 0"),
        ({"guidance_scale": float("nan")}, "guidance_scale: nan is not allowed; allowed: a number from 0"),
        ({"guidance_scale": "7"}, "guidance_scale: '7' is not allowed; allowed: a number from 0"),
        ({"init_image": ""}, "init_image: '' is not allowed; allowed: the path of a picture to start from, or null"),
        ({"init_image": "a\0b"}, "init_image: 'a\\x00b' is not allowed; allowed: the path of a picture to start from"),
        (
            {"strength": 2.0},
            "strength: 2.0 is not allowed; allowed: how much of init_image is changed, from 0 to 1, or null (the "
            "model's own); for example strength: 0.8",
        ),
        ({"twin": "no"}, "twin: 'no' is not allowed; allowed: true, or false (no plaintext run to compare with); for "),
        ({"backend": 3}, "backend: 3 is not allowed; allowed: a name, or {name: ..., option: ...}"),
        ({"model": {"width": 3}}, "model: {'width': 3} is not allowed; allowed: a name, or {name: ..., option: ...}"),
        ({"model": ""}, "model: '' is not allowed; allowed: a name, or {name: ..., option: ...}"),
        ({"allow_insecure": "yes"}, "allow_insecure: 'yes' is not allowed; allowed: true or false; for example "),
        ({"out": ""}, "out: '' is not allowed; allowed: the path of a folder; for example out: hefw-run"),
        ({"out": "a\0b"}, "out: 'a\\x00b' is not allowed; allowed: the path of a folder"),
        ({"params": 3}, "params: 3 is not allowed; allowed: a mapping of modulus_bits, precision_db, ring_dimension"),
        (
            {"params": {"precision_db": 10}},
            "params.precision_db: 10 is not allowed; allowed: a PSNR against the plaintext twin from 20 to 100 (dB); "
            "for example precision_db: 60",
        ),
        ({"params": {"precision_db": float("nan")}}, "params.precision_db: nan is not allowed; allowed: a PSNR"),
        ({"params": {"ring_dimension": 1000}}, "params.ring_dimension: 1000 is not allowed; allowed: a power of two"),
        ({"params": {"modulus_bits": [60, 61]}}, "params.modulus_bits: 61 is not allowed; allowed: a list of prime"),
        ({"params": {"modulus_bits": [60, 19]}}, "params.modulus_bits: 19 is not allowed; allowed: a list of prime"),
        ({"params": {"modulus_bits": []}}, "params.modulus_bits: [] is not allowed; allowed: a list of prime"),
        ({"params": {"special_bits": 60}}, "params.special_bits: 60 is not allowed; allowed: a list of prime"),
        ({"stepz": 1}, "unknown key 'stepz'; did you mean 'steps'? Known: allow_insecure, backend, batch, guidance"),
        (
            {"params": {"precision": 40}},
            "unknown key 'params.precision'; did you mean 'precision_db'? Known: modulus_bits, precision_db,",
        ),
    ],
)
def test_refused_values(values: dict[str, Any], line: str) -> None:
    assert refused(**values).startswith(line)


def test_long_and_odd_values_stay_one_short_line() -> None:
    assert "..." in refused(backend=["x" * 10_000])
    assert "\n" not in refused(steps="a\nb")
    assert "finite numbers, text" in refused(model={"name": "digits", "width": object()})
    assert "finite numbers, text" in refused(model={"name": "digits", "width": float("inf")})
    loop: list[Any] = []
    loop.append(loop)
    assert "numbers, text" in refused(model={"name": "digits", "width": loop})


def test_validation_by_pydantic_gives_the_same_error() -> None:
    with pytest.raises(ConfigError, match="steps: 0 is not allowed"):
        Config.model_validate({"steps": 0})


def test_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config().steps = 3  # type: ignore[misc]


# Refresh


@pytest.mark.parametrize(
    ("given_value", "refresh", "written", "steps_a_message"),
    [
        ("client", Refresh("client"), "client", 1),
        ("none", Refresh("none"), "none", 12),
        ("bootstrap", Refresh("bootstrap"), "bootstrap", 1),
        ({"name": "client"}, Refresh("client"), "client", 1),
        ({"name": "none"}, Refresh("none"), "none", 12),
        ({"name": "client", "every": 1}, Refresh("client"), "client", 1),
        ({"name": "client", "every": 3}, Refresh("client", 3), {"name": "client", "every": 3}, 3),
        ({"every": 3}, Refresh("client", 3), {"name": "client", "every": 3}, 3),
        ({"name": "bootstrap", "every": 1000}, Refresh("bootstrap", 1000), {"name": "bootstrap", "every": 1000}, 1000),
        (Refresh("bootstrap", 2), Refresh("bootstrap", 2), {"name": "bootstrap", "every": 2}, 2),
    ],
)
def test_refresh_forms(given_value: object, refresh: Refresh, written: object, steps_a_message: int) -> None:
    config = Config(refresh=given_value)
    assert config.refresh == refresh
    assert config.to_dict()["refresh"] == written
    assert Config(**config.to_dict()) == config
    assert refresh.steps_a_message(12) == steps_a_message


ALLOWED = "is not allowed; allowed: client, none or bootstrap, or {name: client, every: 2}; for example refresh: client"
EVERY_ALLOWED = (
    "is not allowed; allowed: an integer from 1 to 1000 that divides the steps; for example {name: client, every: 2}"
)


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("bootstrp", f"refresh: 'bootstrp' {ALLOWED}"),
        ("Client", f"refresh: 'Client' {ALLOWED}"),
        ("", f"refresh: '' {ALLOWED}"),
        (None, f"refresh: None {ALLOWED}"),
        (2, f"refresh: 2 {ALLOWED}"),
        (["client"], f"refresh: ['client'] {ALLOWED}"),
        ({"name": ["client"]}, f"refresh: {{'name': ['client']}} {ALLOWED}"),
        ({"name": "server", "every": 2}, f"refresh: {{'name': 'server', 'every': 2}} {ALLOWED}"),
        ({"name": "client", "evry": 2}, f"refresh: {{'name': 'client', 'evry': 2}} {ALLOWED}"),
        ({"name": "client", "every": 0}, f"refresh: every 0 {EVERY_ALLOWED}"),
        ({"name": "bootstrap", "every": 1001}, f"refresh: every 1001 {EVERY_ALLOWED}"),
        ({"name": "client", "every": "2"}, f"refresh: every '2' {EVERY_ALLOWED}"),
        ({"name": "client", "every": 2.0}, f"refresh: every 2.0 {EVERY_ALLOWED}"),
        ({"name": "client", "every": True}, f"refresh: every True {EVERY_ALLOWED}"),
        ({"name": "client", "every": None}, f"refresh: every None {EVERY_ALLOWED}"),
        (
            {"name": "none", "every": 2},
            "refresh: none does all steps from one message; leave every out, or use {name: client, every: 2}",
        ),
    ],
)
def test_refresh_refused(value: object, line: str) -> None:
    assert refused(refresh=value) == line


@pytest.mark.parametrize(
    ("refresh", "words"),
    [
        ("client", ""),
        ("none", " --refresh none"),
        ("bootstrap", " --refresh bootstrap"),
        ({"name": "client", "every": 2}, " --refresh client --every 2"),
        ({"name": "bootstrap", "every": 5}, " --refresh bootstrap --every 5"),
    ],
)
def test_the_command_repeats_the_refresh(refresh: object, words: str) -> None:
    plain = "hefw generate --labels 0-9,0-5 --seed 0 --backend tenseal --strategy full --model digits"
    assert Config(refresh=refresh).command() == f"{plain} --scheduler auto{words}"


@pytest.mark.parametrize(
    ("values", "head", "tail"),
    [
        ({}, "--labels 0-9,0-5", ""),
        ({"steps": 10}, "--labels 0-9,0-5 --steps 10", ""),
        ({"prompt": ["a cat", "it's"]}, "", "--prompt 'a cat' --prompt 'it'\"'\"'s'"),
        ({"prompt": "a cat", "labels": "3"}, "--labels 3", "--prompt 'a cat'"),
        ({"prompt": "a", "negative_prompt": ""}, "", "--prompt a --negative-prompt ''"),
        ({"protocol": "update-only", "twin": False}, "--labels 0-9,0-5", "--protocol update-only --no-twin"),
        ({"noise_prediction": "plaintext"}, "--labels 0-9,0-5", "--noise-prediction plaintext"),
        (
            {"guidance_scale": 7.5, "init_image": "a b.png", "strength": 0.0, "mask": "m.png"},
            "--labels 0-9,0-5",
            "--guidance-scale 7.5 --init-image 'a b.png' --strength 0.0 --mask m.png",
        ),
    ],
)
def test_the_command_has_what_is_no_default(values: dict[str, Any], head: str, tail: str) -> None:
    """And always labels, unless prompts stand for them."""
    rest = "--seed 0 --backend tenseal --strategy full --model digits --scheduler auto"
    assert Config(**values).command() == " ".join(f"hefw generate {head} {rest} {tail}".split())


def test_every_alone_keeps_the_refresh_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("refresh: {name: bootstrap, every: 5}\n")
    assert load(path).refresh == Refresh("bootstrap", 5)
    assert merge(path, {"refresh": {"every": 2}}).refresh == Refresh("bootstrap", 2)
    assert merge(path, {"refresh": "client"}).refresh == Refresh("client", 1)
    assert merge(path, {"refresh": {"name": "client", "every": 2}}).refresh == Refresh("client", 2)
    assert merge(None, {"refresh": {"every": 2}}).refresh == Refresh("client", 2)
    with pytest.raises(ConfigError, match="none does all steps from one message"):
        merge(Config(refresh="none"), {"refresh": {"every": 2}})


def test_refresh_in_toml(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('refresh = {name = "client", every = 2}\n')
    assert load(path).refresh == Refresh("client", 2)


# Round trips


@given(configs())
def test_round_trip(config: Config) -> None:
    assert Config(**config.to_dict()) == config
    assert Config(**json.loads(json.dumps(config.to_dict()))) == config
    assert merge(config, {}) == config


@pytest.mark.parametrize("suffix", [".yaml", ".yml", ".toml"])
def test_load(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"run{suffix}"
    if suffix == ".toml":
        path.write_text('labels = "0-4"\nsteps = 5\n[model]\nname = "digits"\nwidth = 8\n[params]\nprecision_db = 40\n')
    else:
        path.write_text("# demo\nlabels: 0-4\nsteps: 5\nmodel: {name: digits, width: 8}\nparams:\n  precision_db: 40\n")
    config = load(path)
    assert config.labels == (0, 1, 2, 3, 4)
    assert config.model == Choice("digits", {"width": 8})
    assert config.params.precision_db == 40
    assert config == Config(labels="0-4", steps=5, model={"name": "digits", "width": 8}, params={"precision_db": 40})


def test_load_what_to_dict_gave(tmp_path: Path) -> None:
    config = Config(labels=[3, 1], backend={"name": "tenseal", "threads": 2}, params={"modulus_bits": [60, 40]})
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(config.to_dict()))
    assert load(path) == config


def test_a_file_of_comments_is_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("# nothing yet\n")
    assert load(path) == Config()


@pytest.mark.parametrize(
    ("name", "text", "parts"),
    [
        ("run.yaml", "steps: 1\nlabels: [1, 2\n", ["malformed", "line 3", "such as steps: 10"]),
        ("run.yaml", "steps: 1\n\tseed: 2\n", ["malformed", "line 2"]),
        ("run.yaml", "steps: 1\nseed: 1\nsteps: 2\n", ["malformed", "line 3", "'steps' is given twice"]),
        ("run.yaml", "steps: \x01\n", ["malformed"]),
        ("run.toml", "steps = 1\nseed = = 2\n", ["malformed", "line 2", "such as steps = 10"]),
        ("run.yaml", "- steps\n", ["['steps']", "a mapping of keys", "steps: 10"]),
        ("run.yaml", "just text\n", ["'just text'", "a mapping of keys"]),
        ("run.yaml", "stpes: 3\n", ["unknown key 'stpes'", "did you mean 'steps'?"]),
        ("run.yaml", "3: 3\n", ["unknown key '3'"]),
        ("run.yaml", "steps: -3\n", ["steps: -3 is not allowed", "from 1 to 1000"]),
        ("run.yaml", "seed:\n", ["seed: None is not allowed"]),
        ("run.yaml", "model: {name: digits, born: 2001-02-03}\n", ["model: options", "are not allowed"]),
        ("run.toml", "steps = '3'\n", ["steps: '3' is not allowed"]),
        ("run.json", "{}", ["unknown kind", ".yaml, .yml, .toml"]),
        ("run.yaml", None, ["does not exist", "give the path of a YAML or TOML file"]),
    ],
)
def test_load_refused(tmp_path: Path, name: str, text: str | None, parts: list[str]) -> None:
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    line = str(caught.value)
    assert line.startswith(f"config {str(path)!r}")
    assert "\n" not in line
    for part in parts:
        assert part in line


def test_load_refuses_folders_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(ConfigError, match="cannot be read: Is a directory; give a readable file"):
        load(tmp_path / "folder.yaml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is not text; give a YAML or TOML file in UTF-8"):
        load(tmp_path / "bytes.toml")


# Merging


def test_options_win_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("steps: 5\nseed: 9\nmodel: {name: digits, width: 8}\nparams: {precision_db: 40}\n")
    config = merge(path, {"steps": 7, "seed": None, "params": {"ring_dimension": 8192}, "model": {"width": 4}})
    assert (config.steps, config.seed) == (7, 9)
    assert (config.params.precision_db, config.params.ring_dimension) == (40, 8192)
    assert config.model == Choice("digits", {"width": 4})
    assert merge(path, {"model": "other"}).model == Choice("other")
    assert merge(config, {"params": Params()}).params == Params()
    assert merge(None, {"backend": {"threads": 2}}).backend == Choice("tenseal", {"threads": 2})


def test_merge_refuses_unknown_keys() -> None:
    with pytest.raises(ConfigError, match="unknown key 'label'; did you mean 'labels'"):
        merge(None, {"label": "3"})


# Plugins


def test_resolve_gives_entries_and_options() -> None:
    chosen = Config(backend={"name": "tenseal", "threads": 2}).resolve(fake_registry())
    assert list(chosen) == ["backend", "strategy", "model", "scheduler"]
    assert chosen["backend"].entry.name == "tenseal"
    assert chosen["backend"].options == ThreadOptions(threads=2)
    assert chosen["model"].options.model_dump() == {"width": 32}


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"backend": "tensela"}, "unknown backend 'tensela'; did you mean 'tenseal'? Known: simulator, tenseal"),
        ({"scheduler": "zzz"}, "unknown scheduler 'zzz'; Known: auto, ddim, euler"),
        (
            {"backend": {"name": "tenseal", "threds": 2}},
            "backend 'tenseal': unknown option 'threds'; did you mean 'threads'? Known: mode, threads",
        ),
        (
            {"backend": {"name": "tenseal", "threads": 0}},
            "backend 'tenseal': option 'threads' = 0 is not allowed: input should be greater than or equal to 1",
        ),
        (
            {"backend": {"name": "tenseal", "mode": [1]}},
            "backend 'tenseal': option 'mode' = [1] is not allowed: input should be a valid string or input should be "
            "a valid integer",
        ),
        ({"strategy": {"name": "full", "x": 1}}, "strategy 'full': unknown option 'x'; Known: none"),
        (
            {"model": {"name": "digits", "threads": 2}},
            "model 'digits': unknown option 'threads'; Known: width; backend 'tenseal' has 'threads': write --option "
            "backend.threads=VALUE",
        ),
        (
            {"model": {"name": "digits", "width": 2, "threads": 2}, "backend": "simulator"},
            "model 'digits': unknown option 'threads'; Known: width",
        ),
        (
            {"scheduler": {"name": "auto", "timestep_spacing": "leading"}},
            "scheduler 'auto': unknown option 'timestep_spacing'; Known: none; options are for a scheduler by name, "
            "such as --scheduler ddim",
        ),
        ({"model": {"name": "digts", "threads": 2}}, "unknown model 'digts'; did you mean 'digits'? Known: digits"),
    ],
)
def test_resolve_refused(values: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**values).resolve(fake_registry())
    assert one_line(caught.value) == line


def test_resolve_mentions_broken_plugins() -> None:
    with pytest.raises(ConfigError, match="Known: none; some plugins failed to load: see `hefw plugins`"):
        Config().resolve(Registry(broken={"stranger": "ImportError: no"}))
