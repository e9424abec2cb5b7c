"""`hefw keys` and the secret of a stored key set, which nothing prints, sends or records."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import toy_model

from hefw import cli
from hefw.keys import sealing, store
from hefw.protocol.process import ServerProcess

OPTIONS = ["--model", "toy", "--scheduler", "toy", "--steps", "3", "--labels", "0-2", "--allow-insecure"]
OPTIONS += ["--param", f"ring_dimension={toy_model.RING}", "--precision-db", "100"]


@pytest.fixture(autouse=True)
def _home(toys: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEFW_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(sealing, "LOG_N", 10)
    monkeypatch.chdir(tmp_path)


def hefw(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> tuple[str, str]:
    found = cli.run(arguments)
    out, err = capsys.readouterr()
    assert found == code, err
    return out, err


def test_new_list_show_remove(capsys) -> None:
    assert hefw(capsys, "keys", "list")[0] == "no key sets; make one: hefw keys new NAME\n"
    out, err = hefw(capsys, "keys", "new", "alice", *OPTIONS)
    assert out == ""
    assert "made key set alice: tenseal, N = 4096, " in err
    assert "the secret key has no passphrase: whoever can read " in err
    out, _ = hefw(capsys, "keys", "list")
    assert out.startswith("alice: tenseal, N = 4096, log2(QP) = ")
    assert "no passphrase, 0 of 1,048,576 shown, INSECURE: " in out
    out, _ = hefw(capsys, "keys", "show", "alice")
    record = store.find("alice").record
    assert f"key id {record.key_id}, parameters " in out
    assert ", ".join(map(str, sorted(record.rotations))) in out
    shown = json.loads(hefw(capsys, "keys", "show", "alice", "--json")[0])
    assert (shown["name"], shown["shown"], shown["key_id"]) == ("alice", 0, record.key_id)
    assert json.loads(hefw(capsys, "keys", "list", "--json")[0]) == [shown]
    _, err = hefw(capsys, "keys", "remove", "alice", code=2)
    assert err == "error: removing key set 'alice' needs a yes; run: hefw keys remove alice --yes\n"
    assert hefw(capsys, "keys", "remove", "alice", "--yes")[1] == "removed key set alice\n"
    assert store.names() == []


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["show", "bob"], "unknown key set 'bob'; Known: none; make it: hefw keys new bob"),
        (["remove", "bob", "--yes"], "unknown key set 'bob'; Known: none"),
        (["remove", "../bob"], "'../bob' cannot name a key set; allowed: "),
        (["new", "a/b", *OPTIONS], "'a/b' cannot name a key set; allowed: "),
        (
            ["new", "bob", *OPTIONS, "--passphrase"],
            "--passphrase asks on a terminal; elsewhere set HEFW_PASSPHRASE or give ",
        ),
        (
            ["new", "bob", *OPTIONS, "--passphrase-file", "none"],
            "--passphrase-file 'none' cannot be read: No such file",
        ),
        (["new", "bob", "--keys", "alice"], "No such option: --keys"),
        (["new", "bob", "--backend", "tensela"], "unknown backend 'tensela'; did you mean 'tenseal'?"),
    ],
)
def test_one_line_for_what_is_wrong(capsys, arguments, line) -> None:
    _, err = hefw(capsys, "keys", *arguments, code=2)
    assert err.startswith(f"error: {line}")
    assert err.count("\n") == 1
    assert store.names() == []


def test_a_damaged_set_is_listed_with_what_is_wrong(capsys) -> None:
    hefw(capsys, "keys", "new", "alice", *OPTIONS)
    (store.find("alice").folder / "keys.json").write_text("{")
    assert "alice: key set 'alice': keys.json is damaged" in hefw(capsys, "keys", "list")[0]
    assert json.loads(hefw(capsys, "keys", "list", "--json")[0])[0]["name"] == "alice"


def test_a_run_with_a_passphrase_of_a_file(capsys, tmp_path, monkeypatch) -> None:
    (tmp_path / "word").write_text("correct horse\nanother line\n")
    hefw(capsys, "keys", "new", "alice", *OPTIONS, "--passphrase-file", "word")
    assert "with a passphrase" in hefw(capsys, "keys", "list")[0]
    run = ["generate", *OPTIONS, "--keys", "alice", "--no-twin"]
    _, err = hefw(capsys, *run, code=2)
    assert "error: key set 'alice': it has a passphrase; give it by HEFW_PASSPHRASE" in err
    monkeypatch.setenv("HEFW_PASSPHRASE", "correct horse")
    hefw(capsys, *run)


# -- the secret --------------------------------------------------------------------------------------------------------

BLOCK = 24  # bytes of a secret in sequence; random bytes do not occur twice


def blocks(secret: bytes) -> list[bytes]:
    """Of all parts of a secret's random bytes, closely enough that no 130 bytes of it can be copied unseen."""
    body = secret[200 : len(secret.rstrip(b"\0")) - BLOCK]
    found = [body[k : k + BLOCK] for k in range(0, len(body) - BLOCK, 96)]
    return [block for block in found if len(set(block)) > BLOCK // 2]


def test_the_secret_is_not_sent_printed_logged_or_recorded(capsys, caplog, monkeypatch, tmp_path) -> None:
    frames: list[bytes] = []
    words: list[str] = []

    class Recorder(ServerProcess):
        def send(self, frame: bytes) -> None:
            frames.append(frame)
            super().send(frame)

        def close(self) -> None:
            words.append(self.stderr())
            super().close()

    monkeypatch.setattr("hefw.run.ServerProcess", Recorder)
    caplog.set_level(logging.DEBUG)
    said = [*hefw(capsys, "keys", "new", "alice", *OPTIONS)]
    said += hefw(capsys, "generate", *OPTIONS, "--keys", "alice", "--out", "run", "--json")
    for command in (["list"], ["show", "alice"], ["list", "--json"], ["show", "alice", "--json"]):
        said += hefw(capsys, "keys", *command)
    said += [record.getMessage() for record in caplog.records] + words
    secret = (store.find("alice").folder / "secret").read_bytes()
    wanted = blocks(secret)
    assert len(wanted) > 50
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != "secret"}
    assert {"run.json", "report.html", "keys.json", "relinearisation"} <= {path.name for path in files}
    everything = b"\0".join([*frames, *files.values(), "\n".join(said).encode()])
    assert len(everything) > 2**20
    assert not [block for block in wanted if block in everything]
    assert not [block for block in wanted if block.hex() in "\n".join(said)]
    planted = everything[:1000] + secret[1000:1130]
    assert [block for block in wanted if block in planted], "the search finds what is there"
