"""The command line: exit codes, one line for what is wrong, pure JSON, and nothing half-written."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from cli_fakes import FakeResult, fake_registry, fake_result
from hypothesis import HealthCheck, given, settings
from test_config import configs

import hefw
from hefw import cli, plugins
from hefw.config import Choice, Config, Refresh
from hefw.core.errors import (
    CapabilityError,
    EnvelopeError,
    GraphError,
    KeyMismatchError,
    LoweringError,
    ParameterError,
    PluginError,
    ProtocolError,
    SchedulerError,
)
from hefw.core.progress import Progress, ProgressCallback
from hefw.hookspecs import Entry
from hefw.plugins import Registry
from hefw.record import INSECURE


class FakeRun:
    """Stands for the module `hefw.run`; remembers the configurations it was given."""

    def __init__(self) -> None:
        self.configs: list[Config] = []
        self.before: Callable[[], None] = lambda: None
        self.changes: dict[str, Any] = {}

    def generate(self, config: Config, *, progress: ProgressCallback, passphrase: str | None = None) -> FakeResult:
        self.configs.append(config)
        print("a library that talks")
        progress(Progress("evaluate", 1, 2, "step 1 of 1, region mid"))
        self.before()
        return fake_result(config, **self.changes)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeRun:
    fake = FakeRun()
    module = ModuleType("hefw.run")
    module.generate = fake.generate  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "hefw.run", module)
    monkeypatch.setattr(hefw, "run", module, raising=False)
    monkeypatch.setattr(plugins, "registry", fake_registry)
    monkeypatch.delenv("HEFW_DEBUG", raising=False)
    monkeypatch.chdir(tmp_path)
    return fake


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., SimpleNamespace]:
    def calling(*arguments: str) -> SimpleNamespace:
        code = cli.run(arguments)
        captured = capsys.readouterr()
        return SimpleNamespace(code=code, out=captured.out, err=captured.err)

    return calling


Call = Callable[..., SimpleNamespace]


def assert_one_error(result: SimpleNamespace, code: int) -> str:
    """The one line on stderr, and nothing on stdout."""
    assert result.code == code
    assert result.out == ""
    assert re.fullmatch(r"error: [^\n]+\n", result.err), result.err
    return str(result.err).strip()


# generate


def test_generate_writes_the_files(run: FakeRun, call: Call) -> None:
    result = call("generate", "--labels", "0-2", "--steps", "3", "--out", "pictures")
    assert result.code == 0
    assert result.out == ""
    assert "a library that talks" in result.err
    assert "evaluating 1/2, step 1 of 1, region mid\n" in result.err
    assert "wrote pictures/report.html" in result.err
    assert sorted(os.listdir("pictures")) == [
        "images.png",
        "levels.svg",
        "plain.png",
        "report.html",
        "run.json",
        "server_view.png",
        "steps.png",
    ]
    assert run.configs == [Config(labels="0-2", steps=3, out="pictures")]


def test_json_alone_is_on_stdout(run: FakeRun, call: Call) -> None:
    run.changes = {"insecure": True}
    result = call("generate", "--json")
    assert result.code == 0
    assert result.out == Path("hefw-run/run.json").read_text()
    assert json.loads(result.out)["hefw_record_version"] == 1
    assert INSECURE in result.err


def test_every_option_wins_over_the_file(run: FakeRun, call: Call) -> None:
    Path("run.toml").write_text('steps = 5\nseed = 4\nlabels = "7"\n[model]\nname = "digits"\nwidth = 8\n')
    words = (
        "generate run.toml --steps 6 --backend simulator --strategy full --scheduler euler --protocol end-to-end "
        "--noise-prediction plaintext --prompt 'a cat' --prompt 'a dog' --negative-prompt blurred --guidance-scale 7 "
        "--init-image a.png --strength 0.5 --mask b.png --no-twin "
        "--refresh bootstrap --every 3 --batch 2 --out x --allow-insecure --precision-db 40 "
        "--param ring_dimension=8192 --param modulus_bits=[60,40] --option width=16"
    )
    assert call(*shlex.split(words)).code == 0
    assert run.configs == [
        Config(
            backend="simulator",
            scheduler="euler",
            model={"name": "digits", "width": 16},
            protocol="end-to-end",
            noise_prediction="plaintext",
            prompt=["a cat", "a dog"],
            negative_prompt="blurred",
            guidance_scale=7.0,
            init_image="a.png",
            strength=0.5,
            mask="b.png",
            twin=False,
            refresh={"name": "bootstrap", "every": 3},
            labels=[7],
            steps=6,
            batch=2,
            seed=4,
            out="x",
            allow_insecure=True,
            params={"precision_db": 40, "ring_dimension": 8192, "modulus_bits": [60, 40]},
        )
    ]


def test_options_reach_the_plugin_they_name(run: FakeRun, call: Call) -> None:
    assert call(*shlex.split("generate --option backend.threads=2 --option model.width=3 --batch auto")).code == 0
    assert run.configs[0].backend == Choice("tenseal", {"threads": 2})
    assert run.configs[0].model == Choice("digits", {"width": 3})
    assert run.configs[0].batch == "auto"


@pytest.mark.parametrize(
    ("words", "refresh"),
    [
        ("", Refresh("client", 5)),
        ("--refresh none", Refresh("none")),
        ("--refresh client", Refresh("client")),
        ("--every 2", Refresh("client", 2)),
        ("--refresh bootstrap --every 10", Refresh("bootstrap", 10)),
    ],
)
def test_refresh_and_every(run: FakeRun, call: Call, words: str, refresh: Refresh) -> None:
    Path("run.yaml").write_text("refresh: {name: client, every: 5}\n")
    assert call("generate", "run.yaml", *shlex.split(words)).code == 0
    assert run.configs[0].refresh == refresh


@given(config=configs())
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],  # the machine may be busy
)
def test_the_command_of_a_config_repeats_it(monkeypatch: pytest.MonkeyPatch, config: Config) -> None:
    seen: list[Config] = []

    def resolve(self: Config) -> None:
        seen.append(self)
        raise KeyboardInterrupt  # far enough

    with monkeypatch.context() as patch:
        patch.setattr(Config, "resolve", resolve)
        words = shlex.split(config.command())
        assert cli.run(words[1:]) == 130
    assert seen == [config]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--steps", "0"], ["steps: 0 is not allowed", "from 1 to 1000"]),
        (["--steps", "x"], ["steps: 'x' is not allowed", "from 1 to 1000"]),
        (["--seed", "-1"], ["seed: -1 is not allowed", "from 0 to 2^63 - 1"]),
        (["--labels", "0-x"], ["labels: '0-x'", "labels: 0-9,0-5"]),
        (["--batch", "many"], ["batch: 'many' is not allowed", "auto"]),
        (["--batch", "9" * 5000], ["batch: '999", "auto"]),
        (["--precision-db", "nan"], ["params.precision_db: 'nan'", "from 20 to 100"]),
        (["--backend", "tensela"], ["unknown backend 'tensela'", "did you mean 'tenseal'?"]),
        (["--scheduler", "eulr"], ["unknown scheduler 'eulr'", "did you mean 'euler'?"]),
        (["--protocol", "update"], ["protocol: 'update' is not allowed", "update-only"]),
        (["--noise-prediction", "plain"], ["noise_prediction: 'plain' is not allowed", "encrypted, or plaintext"]),
        (["--prompt", ""], ["prompt: '' is not allowed", "text"]),
        (["--prompt"], ["--prompt", "--help"]),
        (["--guidance-scale", "much"], ["guidance_scale: 'much' is not allowed", "a number from 0"]),
        (["--guidance-scale", "-1"], ["guidance_scale: -1.0 is not allowed", "a number from 0"]),
        (["--strength", "2"], ["strength: 2.0 is not allowed", "from 0 to 1"]),
        (["--strength", "nan"], ["strength: 'nan' is not allowed", "from 0 to 1"]),
        (["--init-image", ""], ["init_image: '' is not allowed", "the path of a picture"]),
        (["--twin=yes"], ["--twin", "--help"]),
        (["--refresh", "bootstrp"], ["refresh: 'bootstrp' is not allowed", "allowed: client, none or bootstrap"]),
        (["--refresh", "x", "--every", "2"], ["refresh: {'name': 'x', 'every': 2} is not allowed"]),
        (["--refresh", ""], ["refresh: '' is not allowed"]),
        (["--every", "0"], ["refresh: every 0 is not allowed", "an integer from 1 to 1000 that divides the steps"]),
        (
            ["--every", "1001"],
            ["refresh: every 1001 is not allowed", "an integer from 1 to 1000 that divides the steps"],
        ),
        (["--every", "-2"], ["refresh: every -2 is not allowed"]),
        (["--every", "1.5"], ["refresh: every 1.5 is not allowed"]),
        (["--every", "two"], ["refresh: every 'two' is not allowed"]),
        (["--every", ""], ["refresh: every '' is not allowed"]),
        (["--refresh", "none", "--every", "2"], ["none does all steps from one message", "leave every out"]),
        (["--param", "ring_dimension=1000"], ["params.ring_dimension: 1000", "power of two"]),
        (["--param", "ring_dim=1024"], ["unknown key 'params.ring_dim'", "did you mean 'ring_dimension'?"]),
        (["--param", "ring_dimension"], ["--param 'ring_dimension'", "for example --param ring_dimension=16384"]),
        (["--option", "widht=8"], ["model 'digits': unknown option 'widht'", "did you mean 'width'?"]),
        (
            ["--option", "threads=2"],
            ["model 'digits': unknown option 'threads'", "backend 'tenseal' has 'threads'", "backend.threads=VALUE"],
        ),
        (["--option", "width=x"], ["model 'digits': option 'width' = 'x'", "valid integer"]),
        (["--option", "backend.threads=99"], ["backend 'tenseal': option 'threads' = 99", "less than or equal to 64"]),
        (["--option", "engine.threads=1"], ["'engine' has no options", "backend, strategy, model, scheduler"]),
        (["--option", "name=other"], ["choose the model by --model NAME"]),
        (["--option", "=1"], ["--option '=1'", "for example --option backend.hosted=true"]),
        (["--option", "backend=hosted"], ["--option 'backend' names no option", "--option backend.KEY=VALUE"]),
        (["missing.yaml"], ["config 'missing.yaml' does not exist", "YAML or TOML"]),
        (["broken.yaml"], ["config 'broken.yaml' is malformed", "line 3"]),
        (["unknown.yaml"], ["config 'unknown.yaml': unknown key 'stpes'", "did you mean 'steps'?"]),
        (["--out", "file"], ["out: cannot write into 'file'", "name a folder"]),
        (["--out", "/proc/nowhere"], ["out: cannot write into '/proc/nowhere'"]),
        (["--out", ""], ["out: '' is not allowed"]),
        (["--stepz", "3"], ["--stepz", "--steps", "hefw generate --help"]),
        (["--steps"], ["--steps", "--help"]),
        (["a.yaml", "b.yaml"], ["b.yaml", "hefw generate --help"]),
    ],
)
def test_bad_input(run: FakeRun, call: Call, arguments: list[str], parts: list[str]) -> None:
    Path("file").write_text("")
    Path("broken.yaml").write_text("steps: 3\nseed: [\n")
    Path("unknown.yaml").write_text("stpes: 3\n")
    before = sorted(os.listdir())
    line = assert_one_error(call("generate", *arguments), 2)
    for part in parts:
        assert part in line
    assert run.configs == []
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize(
    ("arguments", "part"),
    [(["genrate"], "generate"), (["train"], "hefw train --help"), (["train", "digts"], "digits"), (["--x"], "--x")],
)
def test_unknown_commands(call: Call, arguments: list[str], part: str) -> None:
    assert part in assert_one_error(call(*arguments), 2)


def raising(error: BaseException) -> Callable[[], None]:
    def before() -> None:
        raise error

    return before


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ParameterError("too\n small"), 2),
        (PluginError("unavailable"), 2),
        (SchedulerError("not linear"), 2),
        (LoweringError("too deep"), 2),
        (GraphError("no file"), 2),
        (CapabilityError("no bootstrap"), 2),
        (ProtocolError("server went away"), 1),
        (EnvelopeError("truncated"), 1),
        (KeyMismatchError("other key"), 1),
    ],
)
def test_errors_of_a_run(run: FakeRun, call: Call, error: Exception, code: int) -> None:
    run.before = raising(error)
    result = call("generate")
    assert result.code == code
    assert result.out == ""
    assert result.err.splitlines()[-1] == f"error: {' '.join(str(error).split())}"
    assert result.err.count("error: ") == 1
    assert os.listdir() == []


@pytest.mark.parametrize("error", [RuntimeError("two\nlines"), MemoryError(), OSError(28, "No space left on device")])
def test_unexpected_errors(run: FakeRun, call: Call, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    run.before = raising(error)
    result = call("generate")
    assert result.code == 1
    last = result.err.splitlines()[-1]
    assert last.startswith(f"error: {type(error).__name__}: ")
    assert last.endswith("(set HEFW_DEBUG=1 for a traceback)")
    assert "Traceback" not in result.err
    monkeypatch.setenv("HEFW_DEBUG", "1")
    result = call("generate")
    assert result.code == 1
    assert "Traceback" in result.err
    assert result.err.splitlines()[-1].startswith(f"error: {type(error).__name__}: ")


def test_interrupt_during_the_run(run: FakeRun, call: Call) -> None:
    run.before = raising(KeyboardInterrupt())
    result = call("generate", "--json")
    assert (result.code, result.out) == (130, "")
    assert result.err.endswith("interrupted\n")
    assert os.listdir() == []


def test_interrupt_while_writing(run: FakeRun, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.write_bytes

    def write_bytes(path: Path, data: bytes) -> int:
        if "steps" in path.name:
            real(path, data[:10])
            raise KeyboardInterrupt
        return real(path, data)

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    assert call("generate", "--json").code == 130
    assert os.listdir("hefw-run") == []


@pytest.mark.parametrize("library", ["jinja2", "matplotlib", "PIL"])
def test_reports_need_their_extra(run: FakeRun, call: Call, monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    import hefw.report

    for name in [name for name in sys.modules if name.startswith("hefw.report.")]:
        monkeypatch.delitem(sys.modules, name)
        monkeypatch.delattr(hefw.report, name.rpartition(".")[2], raising=False)
    monkeypatch.setitem(sys.modules, library, None)
    line = assert_one_error(call("generate"), 2)
    assert f"reports need {library}, which is not installed" in line
    assert "pip install 'hefw[report]'" in line


def test_broken_reports_end_a_run_at_its_first_step(run: FakeRun, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hefw.report.write", None)
    run.before = lambda: pytest.fail("the run went on")
    result = call("generate")
    assert result.code == 2
    assert "evaluating 1/2" in result.err
    assert (
        "error: reports cannot be written: import of hefw.report.write halted; None in sys.modules; run: pip"
        in result.err
    )


SCRIPT = """
import sys, time
from types import ModuleType
sys.path.insert(0, {folder!r})
from cli_fakes import fake_registry
from hefw import cli, plugins
plugins.registry = fake_registry
def generate(config, *, progress, passphrase=None):
    print("ready", file=sys.stderr, flush=True)
    time.sleep(60)
module = ModuleType("hefw.run")
module.generate = generate
sys.modules["hefw.run"] = module
import hefw
hefw.run = module
cli.main()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals(tmp_path: Path, number: signal.Signals, code: int) -> None:
    script = SCRIPT.format(folder=str(Path(__file__).parent))
    process = subprocess.Popen(
        [sys.executable, "-c", script, "generate", "--out", "out"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "ready\n"
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert out == ""
    assert err == ("interrupted\n" if number == signal.SIGINT else "")
    assert list(tmp_path.iterdir()) == []


# help and version


def test_version_and_help(call: Call) -> None:
    assert call("--version").out == f"hefw {hefw.__version__}\n"
    assert "generate" in call().out
    assert call("--help").code == 0


def test_help_tells_the_defaults_as_they_are(call: Call) -> None:
    text = " ".join(re.sub(r"-\n +", "-", call("generate", "--help").out).split())
    values = Config().to_dict()
    values["precision-db"] = f"{values.pop('params')['precision_db']:g}"
    for key, value in values.items():
        option = re.split(r" --(?!no-)", text[text.index(f"--{key.replace('_', '-')} ") :])[0]
        told = re.findall(r"\(default ([^)]+)\)", option)
        shown = {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
        assert told == ([] if value in (None, []) else [shown]), key


def test_every_key_is_an_option(call: Call) -> None:
    text = call("generate", "--help").out
    for key in set(Config.model_fields) - {"params"}:
        assert f"--{key.replace('_', '-')} " in text


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from hefw import cli; assert cli.run(['generate', '--help']) == 0; "
        "heavy = {'numpy', 'rich', 'torch', 'PIL', 'yaml', 'jinja2', 'matplotlib', 'pluggy'} & set(sys.modules); "
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "hefw", "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"hefw {hefw.__version__}\n")
    done = subprocess.run([sys.executable, "-m", "hefw", "genrate"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")


# plugins


@pytest.fixture
def odd_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry(broken={"stranger": "ImportError: no\nsuch library"})
    registry.add("backend", Entry("far", "x:y", "an HE library", requires=("no_such",), advice="pip install x"), "me")
    registry.add("model", Entry("net", "x:y", "a [small] model"), "me")
    monkeypatch.setattr(plugins, "registry", lambda: registry)


def test_plugins_plain(call: Call, odd_registry: None) -> None:
    result = call("plugins")
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[0].split() == ["kind", "name", "version", "what", "it", "is"]
    assert lines[1].endswith("an HE library (unavailable: no_such not installed; run: pip install x)")
    assert lines[2].endswith("a [small] model")
    assert lines[3].startswith("plugin   stranger")
    assert lines[3].endswith("failed: ImportError: no such library")
    assert len({line.index(word) for line, word in zip(lines[1:], ["an HE", "a [sm", "failed"], strict=True)}) == 1


def test_plugins_json(call: Call, odd_registry: None) -> None:
    rows = json.loads(call("plugins", "--json").out)
    assert [(row["kind"], row["name"]) for row in rows] == [
        ("backend", "far"),
        ("model", "net"),
        ("plugin", "stranger"),
    ]
    assert rows[0]["unavailable"] == "no_such not installed; run: pip install x"
    assert rows[1]["unavailable"] is None


def test_plugins_table_on_a_terminal(call: Call, odd_registry: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    out = call("plugins").out
    assert "a [small] model" in out
    assert "┃" in out


# train


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    calls: list[dict[str, Any]] = []

    def run(out: Path, *, progress: Callable[[int, int, str], None], **arguments: Any) -> None:
        calls.append({"out": str(out), **arguments})
        progress(5, 5, "loss 0.2500")

    monkeypatch.setattr("hefw.plugins.Registry.training", lambda _, name: {"digits": run}[name])
    monkeypatch.chdir(tmp_path)
    return calls


def test_train(trainer: list[dict[str, Any]], call: Call) -> None:
    result = call("train", "digits", "--out", "weights", "--seed", "3", "--iterations", "5", "--data", "there")
    assert (result.code, result.out) == (0, "")
    assert result.err == "training 5/5, loss 0.2500\nwrote weights\n"
    assert call("train", "digits").code == 0
    assert trainer == [
        {"iterations": 5, "seed": 3, "out": "weights", "data": Path("there")},
        {"iterations": None, "seed": 0, "out": "digits", "data": None},
    ]


def test_what_can_be_trained(call: Call) -> None:
    line = assert_one_error(call("train", "stable-diffusion"), 2)
    assert "model 'stable-diffusion' cannot be trained again; digits" in line


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--iterations", "0"], "--iterations 0 is not allowed; allowed: an integer from 1"),
        (["--iterations", "x"], "--iterations 'x' is not allowed; allowed: an integer from 1"),
        (["--seed", "-1"], "--seed -1 is not allowed; allowed: an integer from 0 to 2^63 - 1"),
        (["--out", "/proc/nowhere"], "cannot write into '/proc/nowhere'"),
    ],
)
def test_train_refuses(trainer: list[dict[str, Any]], call: Call, arguments: list[str], part: str) -> None:
    assert part in assert_one_error(call("train", "digits", *arguments), 2)
    assert trainer == []
