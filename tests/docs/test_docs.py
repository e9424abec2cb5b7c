"""README and docs say what the code does: links exist, examples run, command lines parse, tables are complete."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import io
import json
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from pages import DOCS, PAGES, README, ROOT, Block, blocks, has_console, name_of, prose, write_files

from hefw import cli, config, plugins
from hefw.config import Config
from hefw.core import backend as interface
from hefw.core.backend import Capabilities, KeyManifest
from hefw.core.params import SECURITY_TABLE, CkksParams
from hefw.record import SCHEMA_PATH

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

#: While figures of a measured run are still to be filled in, so is the picture of that run.
PLACEHOLDER = re.compile(r"\{\{.*?\}\}")
PICTURE = DOCS / "images" / "digits.png"
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
ALL = [block for page in PAGES for block in blocks(page)]


# -- links and pictures ----------------------------------------------------------------------------------------------


def heading_ids(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", prose(page), re.M)
    return {re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", h.lower()).strip()) for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_exist(page: Path) -> None:
    draft = PLACEHOLDER.search(README.read_text(encoding="utf-8"))
    for link in LINK.findall(prose(page)):
        target, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", target):
            assert target.startswith("https://"), link
            continue
        path = (page.parent / target).resolve() if target else page
        if path == PICTURE and draft:
            continue
        assert path.is_file(), f"{name_of(page)} links to {link}"
        assert ROOT in path.parents, link
        assert not anchor or anchor in heading_ids(path), f"{name_of(page)} links to {link}"


def test_every_page_is_in_the_navigation() -> None:
    listed = set(re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M))
    assert listed == {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}


def test_placeholders_are_in_the_readme_only_and_well_formed() -> None:
    for page in PAGES:
        for found in PLACEHOLDER.findall(page.read_text(encoding="utf-8")):
            assert page == README
            assert re.fullmatch(r"\{\{FIGURE:[a-z0-9_]+\}\}", found), found


@pytest.mark.parametrize(
    "path",
    [*PAGES, ROOT / "Makefile", ROOT / "constraints.txt", ROOT / "mkdocs.yml", ROOT / "CITATION.cff"],
    ids=name_of,
)
def test_no_machine_paths_and_no_registry_hosts(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"(?<![\w.~/:])/(?:work|root|home|Users|tmp|opt|mnt)\b", text)
    assert not re.search(r"pypi\.|pythonhosted|index-url|find-links|whl/cpu|file://", text)


# -- examples --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_code_blocks_have_a_known_kind(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.count("```") == 2 * len(blocks(page))
    for block in blocks(page):
        assert block.language in ("bash", "console", "python", "yaml", "toml", "text")
        assert (block.mark in ("config", "file")) == (block.name is not None)
        assert block.language not in ("yaml", "toml") or block.mark in ("config", "file")


@pytest.mark.parametrize("block", [b for b in ALL if b.mark == "config"], ids=lambda b: f"{name_of(b.page)}:{b.name}")
def test_configurations_load(block: Block, tmp_path: Path) -> None:
    assert block.name is not None
    path = tmp_path / block.name
    path.write_text(block.text)
    loaded = config.load(path)
    assert loaded.resolve().keys() == set(plugins.KINDS)


@pytest.mark.parametrize("block", [b for b in ALL if b.language == "python"], ids=lambda b: name_of(b.page))
def test_python_compiles(block: Block) -> None:
    compile(block.text, name_of(block.page), "exec")


@pytest.fixture
def example(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The files of a page's example packages and configurations, importable, as the working directory."""
    packages = write_files(request.param, tmp_path)
    for name in ("40db", "60db"):
        run = tmp_path / "runs" / name / "run.json"
        run.parent.mkdir(parents=True)
        run.write_text(json.dumps(a_record()))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for module in list(sys.modules):
        if module.partition(".")[0] in packages:
            del sys.modules[module]


def a_record() -> dict[str, Any]:
    """The fields of run.json, by its schema, with made-up numbers."""
    made = from_schema(json.loads(SCHEMA_PATH.read_text()))
    assert isinstance(made, dict)
    return made


def from_schema(schema: dict[str, Any], root: dict[str, Any] | None = None) -> Any:
    root = root or schema
    if "$ref" in schema:
        return from_schema(root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    if "anyOf" in schema:
        return from_schema(schema["anyOf"][0], root)
    if schema.get("type") == "object":
        return {name: from_schema(part, root) for name, part in schema.get("properties", {}).items()}
    return {"integer": 1, "number": 0.5, "boolean": False, "string": "x", "array": []}.get(schema.get("type", ""), 1)


@pytest.mark.parametrize(
    "example",
    [p for p in PAGES if any(b.mark == "run" for b in blocks(p)) and not has_console(p)],
    ids=name_of,
    indirect=True,
)
def test_python_runs(example: Path, request: pytest.FixtureRequest) -> None:
    page: Path = request.node.callspec.params["example"]
    output = io.StringIO()
    for block in blocks(page):
        if block.mark == "run":
            with contextlib.redirect_stdout(output):
                exec(compile(block.text, name_of(page), "exec"), {"__name__": "__main__"})
    assert output.getvalue()


PLUGIN_PAGES = [p for p in PAGES if any(b.mark == "file" and str(b.name).endswith("plugin.py") for b in blocks(p))]


@pytest.mark.parametrize("example", PLUGIN_PAGES, ids=name_of, indirect=True)
def test_plugins_register(example: Path) -> None:
    """Through an entry point where the page shows one, else as a module; targets import where the page has them."""
    modules = {".".join(path.relative_to(example).with_suffix("").parts) for path in example.glob("*/plugin.py")}
    project = tomllib.loads((example / "pyproject.toml").read_text())["project"]
    points = [importlib.metadata.EntryPoint(n, v, "hefw") for n, v in project["entry-points"]["hefw"].items()]
    assert points
    for point in points:
        modules.remove(point.value)
    sources = [(point.name, point.load) for point in points]
    sources += [(name, lambda name=name: importlib.import_module(name)) for name in sorted(modules)]
    found = plugins.build(sources)
    assert found.broken == {}
    assert set(found.sources.values()) == {name for name, _ in sources}
    for (kind, name), entry in found.entries.items():
        module = entry.target.partition(":")[0]
        if (example / Path(*module.split("."))).with_suffix(".py").exists():
            assert callable(found.load(kind, name))
        assert entry.options() is not None
    assert len(found.listing()) == len(found.entries)


@pytest.mark.parametrize("example", [DOCS / "how-to" / "write-a-backend.md"], ids=name_of, indirect=True)
def test_the_example_backend_is_complete(example: Path) -> None:
    """It does what the page's list of methods promises, whatever the page itself runs."""
    from hefw.core.errors import EnvelopeError

    backend = importlib.import_module("hefw_exact.backend").ExactBackend()
    manifest = KeyManifest(rotations={3: 1})
    params = backend.resolve(CkksParams(8192, (50, 40), (60,), 40.0))
    holder, server = backend.keygen(params, manifest), backend.evaluator(params)
    server.load_keys(dict(holder.evaluation_keys()))
    x = np.linspace(-1, 1, params.slots)
    ct = server.load(holder.encrypt_bytes(x, 1, 2.0**40))
    product = server.rescale(server.mul_plain(server.sub(server.rotate(ct, 3), ct), server.encode(2.0, 1, 2.0**40)))
    product = server.add_plain(server.negate(product), server.encode(x, 0, product.scale))
    np.testing.assert_allclose(holder.decrypt(product).real, x - 2 * (np.roll(x, -3) - x), atol=1e-9)
    assert server.drop_level(ct, 0).level == 0
    holder.save(example / "key")
    assert backend.load_key_holder(params, manifest, example / "key").key_id == holder.key_id
    with pytest.raises(EnvelopeError):
        server._load(b"short", 1, 1.0)


# -- command lines -----------------------------------------------------------------------------------------------------


class Reached(BaseException):
    """The command line was parsed and its configuration is valid."""


def commands() -> list[tuple[Path, str]]:
    """Every line of a bash block that starts with hefw."""
    lines = [(b.page, line.strip()) for b in ALL if b.language == "bash" for line in b.text.splitlines()]
    return [(page, line) for page, line in lines if line.startswith("hefw ")]


@pytest.mark.parametrize(
    ("page", "line"), commands(), ids=lambda value: value if isinstance(value, str) else name_of(value)
)
def test_command_lines_parse(
    page: Path, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for block in blocks(page):
        if block.mark == "config" and block.name:
            (tmp_path / block.name).write_text(block.text)
    monkeypatch.chdir(tmp_path)

    def reached(self: Config, registry: Any = None) -> Any:
        raise Reached

    arguments = shlex.split(line, comments=True)[1:]
    if arguments[0] in ("generate", "profile", "quality", "audit") or arguments[:2] == ["keys", "new"]:
        monkeypatch.setattr(Config, "resolve", reached)
        with pytest.raises(Reached):
            cli.run(arguments)
    elif arguments[0] in ("compare", "compile", "inspect", "train"):
        typer.main.get_command(cli.app).commands[arguments[0]].make_context(arguments[0], arguments[1:])  # type: ignore[attr-defined]
    elif arguments[:2] in (["backends", "install"], ["backends", "doctor"]) or arguments[0] in ("keys", "cache"):
        command = typer.main.get_command(cli.app)
        for name in arguments[:2]:
            command = command.commands[name]  # type: ignore[attr-defined]
        command.make_context(arguments[1], arguments[2:])
    else:
        assert cli.run(arguments) == 0
        assert capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    text = page.read_text(encoding="utf-8")
    shown = re.findall(r"`make ([a-z ]+)`", text) + re.findall(r"^make ([a-z ]+?)(?: *#.*)?$", text, re.M)
    assert {target for words in shown for target in words.split()} <= targets


# -- references are complete -------------------------------------------------------------------------------------------


def test_the_command_line_reference_has_every_command_and_option() -> None:
    text = (DOCS / "reference" / "cli.md").read_text(encoding="utf-8")

    def check(command: Any, name: str) -> None:
        for parameter in command.params:
            for option in (*parameter.opts, *parameter.secondary_opts):
                if option.startswith("--") and option not in ("--help",):
                    assert option in text, f"{name} {option}"
        for child, sub in getattr(command, "commands", {}).items():
            assert f"{name} {child}" in text
            check(sub, f"{name} {child}")

    check(typer.main.get_command(cli.app), "hefw")


@pytest.mark.parametrize("model", [config.Config, config.Params])
def test_the_configuration_reference_has_every_key_and_default(model: Any) -> None:
    text = (DOCS / "reference" / "configuration.md").read_text(encoding="utf-8")
    defaults = Config().to_dict() | {"params": None}
    for key in model.model_fields:
        row = re.search(rf"^\| `{key}` \| (.*?) \|", text, re.M)
        assert row, key
        default = defaults.get(key) if model is config.Config else Config().to_dict()["params"][key]
        if key != "params":
            shown = json.dumps(default) if not isinstance(default, str) else default
            shown = shown.removesuffix(".0")
            assert row[1].strip("`") == shown, key


def test_the_configuration_reference_has_every_option_of_built_in_plugins() -> None:
    text = (DOCS / "reference" / "configuration.md").read_text(encoding="utf-8")
    found = plugins.registry()
    for (kind, name), entry in found.entries.items():
        if found.sources[kind, name] in plugins.BUILTIN:
            for option in entry.options.model_fields:
                assert f"`{option}`" in text, f"{kind} {name} {option}"


def test_the_record_reference_has_every_field() -> None:
    text = (DOCS / "reference" / "run-json.md").read_text(encoding="utf-8")
    schema = json.loads(SCHEMA_PATH.read_text())
    for part in (schema, *schema["$defs"].values()):
        for field in part["properties"]:
            assert f"`{field}`" in text, field


def test_the_security_table_is_that_of_the_code() -> None:
    text = (DOCS / "explanation" / "security-model.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| *(\d*) \| *(\d*) \| *(\d*) \|$", text, re.M)
    shown = {
        bits: {int(row[0]): int(row[k + 1]) for row in rows if row[k + 1]}
        for k, bits in enumerate(sorted(SECURITY_TABLE))
    }
    assert shown == SECURITY_TABLE


def test_the_backend_reference_has_every_method_and_capability() -> None:
    text = (DOCS / "reference" / "backend.md").read_text(encoding="utf-8")
    for field in fields(Capabilities):
        row = re.search(rf"^\| `{field.name}` \| (.*?) \|", text, re.M)
        assert row, field.name
        if field.name != "ring_dimensions":
            assert row[1] == str(field.default).lower(), field.name
    for kind in (interface.Backend, interface.KeyHolder, interface.Evaluator):
        (row,) = re.findall(rf"^\| `{kind.__name__}` \| (.*?) \|", text, re.M)
        assert set(kind.__abstractmethods__) <= set(re.findall(r"`(\w+)`", row)), kind.__name__
