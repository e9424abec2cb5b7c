"""Key sets: made, found, used again by runs, refused where they do not serve or are not safe, removed."""

from __future__ import annotations

import json
import logging
import os
import stat
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import toy_model

import hefw
from hefw.config import Config
from hefw.core.errors import KeyStoreError, ProtocolError
from hefw.core.lower import lower
from hefw.keymaking import make_keys
from hefw.keys import folders, sealing, store
from hefw.keys.count import ShownCount
from hefw.protocol import client as client_module
from hefw.protocol import wire

TOY = toy_model.CONFIG
WORD = "correct horse"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty key store, and scrypt in less time than an attacker should be given."""
    monkeypatch.setenv("HEFW_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(sealing, "LOG_N", 10)
    return tmp_path / "home" / "keys"


@pytest.fixture
def alice(toys: None) -> store.KeySet:
    return make_keys("alice", Config(**TOY))


def modes(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): oct(path.lstat().st_mode & 0o7777) for path in folder.rglob("*")}


def run(**more: object) -> hefw.Result:
    return hefw.generate(**{**TOY, "twin": False, "keys": "alice", **more})


# -- making and finding ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777 & ~0o700])
def test_files_are_their_owners_only_whatever_the_umask(toys, home, umask) -> None:
    before = os.umask(umask)
    try:
        make_keys("alice", Config(**TOY))
    finally:
        os.umask(before)
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    found = modes(home)
    assert set(found.values()) == {"0o600", "0o700"}
    assert {name for name, mode in found.items() if mode == "0o700"} == {"alice", "alice/evaluation"}
    assert "alice/secret" in found


def test_a_set_is_what_the_plan_wants(alice) -> None:
    backend = toy_model.backend()
    program = lower(toy_model.graph(), backend, replace(toy_model.REQUEST, images=3))
    assert alice.record.manifest == program.interface.keys
    assert alice.record.resolved == program.params
    names = {name.replace("/", "-") for name in program.interface.keys.names()}
    assert {path.name for path in (alice.folder / "evaluation").iterdir()} == names
    assert (alice.shown, alice.record.sealed, alice.record.made_for) == (0, False, "toy, end-to-end")
    assert store.names() == ["alice"]
    assert store.find("alice").record == alice.record


def test_two_runs_use_one_key_and_a_third_another(toys, alice, tmp_path) -> None:
    first, again, other = run(twin=True), run(), run(keys=None)
    assert toy_model.psnr(first.images, first.plain) >= toy_model.PRECISION_DB
    ids = [{view[44:60].hex() for view in result.server_view} for result in (first, again, other)]
    assert ids[0] == ids[1] == {alice.record.key_id}
    assert not ids[0] & ids[2]
    assert not set(first.server_view) & set(again.server_view)  # the same picture, other randomness
    assert first.record.config["keys"] == "alice"
    assert first.record.ledger.shown_under_key == 0


def test_no_key_is_made_again(toys, alice, monkeypatch) -> None:
    from hefw.backends.tenseal.backend import TensealBackend
    from hefw.backends.tenseal.keyholder import TensealKeyHolder

    for kind, name in ((TensealBackend, "keygen"), (TensealKeyHolder, "_evaluation_key")):
        monkeypatch.setattr(kind, name, lambda *_: pytest.fail("a key was made"))
    told = []
    hefw.generate(**{**TOY, "keys": "alice"}, progress=told.append)
    assert "keys" in {p.stage for p in told}
    assert "keygen" not in {p.stage for p in told}


def test_a_run_that_needs_less_sends_less(toys, home) -> None:
    """Keys for more rotations serve a program of fewer."""
    made = make_keys("alice", Config(**TOY))
    dropped = max(made.record.rotations)
    assert run().record.bytes.evaluation_keys == sum(p.stat().st_size for p in (made.folder / "evaluation").iterdir())
    record = made.record.model_copy(update={"rotations": {**made.record.rotations, 1023: 1}})
    assert dropped != 1023
    (made.folder / "keys.json").write_text(record.to_json())
    assert run().images.shape == (3, 1, 4, 4)


def test_update_only_uses_a_set_too(toys) -> None:
    wanted = {"model": "digits", "scheduler": "auto", "steps": 2, "protocol": "update-only", "backend": "simulator"}
    config = Config(**{"labels": "0-1", "twin": False, **wanted})
    from hefw import plugins, running

    with pytest.MonkeyPatch.context() as patch:  # the toys have no digits
        patch.undo()
        real = plugins.build(
            [(name, __import__(name, fromlist=["x"])) for name in plugins.BUILTIN if "models" in name or "sim" in name]
            + [("strategies", __import__("hefw.strategies.plugin", fromlist=["x"]))]
        )
        patch.setattr(plugins, "registry", lambda: real)
        patch.setattr(running, "registry", lambda: real)
        made = make_keys("alice", config)
        assert made.record.made_for == "digits, update-only"
        result = hefw.generate(config, keys="alice")
    assert {view[44:60].hex() for view in result.server_view} == {made.record.key_id}


def test_a_name_is_taken_once(toys, alice) -> None:
    with pytest.raises(KeyStoreError) as caught:
        make_keys("alice", Config(**TOY))
    assert str(caught.value) == (
        "key set 'alice' is there already; choose another name, for example alice-2, or remove it: "
        "hefw keys remove alice"
    )


@pytest.mark.parametrize("name", ["a/b", "../a", ".a", "", "a b", "a\n", "ä", "a" * 65])
def test_names_that_are_refused(home, name) -> None:
    for use in (store.find, store.remove, store.check_new):
        with pytest.raises(KeyStoreError, match="cannot name a key set; allowed: a letter or digit, then"):
            use(name)
    assert not home.exists()


def test_an_unknown_set_names_the_known_ones(toys, alice) -> None:
    with pytest.raises(KeyStoreError, match="unknown key set 'alicia'; did you mean 'alice'"):
        run(keys="alicia")


def test_interrupted_while_it_is_made_nothing_is_left(toys, home) -> None:
    def stop(progress: object) -> None:
        if getattr(progress, "stage", "") == "keygen":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_keys("alice", Config(**TOY), progress=stop)
    assert list(home.iterdir()) == []


def test_a_removed_set_is_gone_with_what_was_interrupted(toys, alice, home) -> None:
    for name in (".alice.01234567", ".alice.b.01234567"):
        (home / name).mkdir()
        (home / name / "secret").write_text("x")
    store.remove("alice")
    assert [path.name for path in home.iterdir()] == [".alice.b.01234567"]
    with pytest.raises(KeyStoreError, match="unknown key set 'alice'"):
        store.remove("alice")


# -- sets that do not serve --------------------------------------------------------------------------------------------


def edited(found: store.KeySet, **changed: object) -> None:
    record = json.loads(found.record.to_json()) | changed
    (found.folder / "keys.json").write_text(json.dumps(record))


def test_rotations_that_lack_are_named_with_the_command(toys, alice) -> None:
    lost = sorted(alice.record.rotations)[:2]
    edited(alice, rotations={str(s): v for s, v in alice.record.rotations.items() if s not in lost})
    with pytest.raises(KeyStoreError) as caught:
        run()
    text = str(caught.value)
    assert f"does not serve this run: it lacks the rotations {lost[0]}, {lost[1]}; make one that does: " in text
    assert "hefw keys new alice-2 --labels 0-2 --steps 3 " in text
    assert "--keys" not in text


def test_parameters_that_differ_are_named(toys, alice) -> None:
    with pytest.raises(KeyStoreError) as caught:
        run(params={"ring_dimension": 8192, "precision_db": 100.0})
    assert "its parameters are N = 4096, primes of " in str(caught.value)
    assert "the plan wants N = 8192, primes of " in str(caught.value)
    assert "--param ring_dimension=8192" in str(caught.value)


def test_a_set_of_another_backend(toys, alice) -> None:
    with pytest.raises(KeyStoreError, match="its keys are of backend 'tenseal', the run's is 'simulator'"):
        run(backend="simulator")


def test_levels_and_kinds_that_lack(alice) -> None:
    from hefw.keys.stored import lacks

    keys, params = alice.record.manifest, alice.record.resolved
    assert lacks(alice.record, params, keys) == []
    step = min(alice.record.rotations)
    low = alice.record.model_copy(update={"rotations": {**alice.record.rotations, step: 0}, "relinearisation": False})
    assert lacks(low, params, keys) == [
        "it has no relinearisation key",
        f"its keys serve too low a level of the rotation {step}",
    ]


# -- what is damaged, foreign or unsafe --------------------------------------------------------------------------------


def test_a_secret_that_others_can_read_is_refused(toys, alice) -> None:
    (alice.folder / "secret").chmod(0o640)
    with pytest.raises(KeyStoreError, match=r"secret' is open to others \(mode 0640\); run: chmod 600 "):
        run()


@pytest.mark.parametrize("which", [".", "alice", "alice/keys.json"])
def test_folders_that_others_can_enter_are_refused(toys, alice, home, which) -> None:
    (home / which).chmod(0o755)
    with pytest.raises(KeyStoreError, match="is open to others"):
        run()


def test_links_are_refused(toys, alice, tmp_path) -> None:
    secret = alice.folder / "secret"
    secret.rename(tmp_path / "elsewhere")
    secret.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(KeyStoreError, match="secret' is a link"):
        run()


def test_a_secret_that_is_gone_or_no_secret(toys, alice) -> None:
    secret = alice.folder / "secret"
    data = secret.read_bytes()
    for broken in (b"", data[:-1], data[:200] + bytes([data[200] ^ 1]) + data[201:], b"PK\x03\x04" + data[4:]):
        secret.write_bytes(broken)
        with pytest.raises(KeyStoreError, match="key set 'alice': the secret key's file is damaged or of another key"):
            run()
    secret.unlink()
    with pytest.raises(KeyStoreError, match="the secret key cannot be read: No such file"):
        run()


def test_the_secret_of_another_set_is_refused(toys, alice) -> None:
    other = make_keys("bob", Config(**TOY))
    (alice.folder / "secret").write_bytes((other.folder / "secret").read_bytes())
    with pytest.raises(KeyStoreError, match="the secret key's file is damaged or of another key"):
        run()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"version": 2}', "null", "\x00" * 9, '{"a":' * 10_000], ids=range(8)
)
def test_a_record_that_is_none(toys, alice, text) -> None:
    (alice.folder / "keys.json").write_text(text)
    with pytest.raises(KeyStoreError, match=r"keys.json is damaged or of another hefw .*hefw keys remove alice"):
        run()
    store.remove("alice")


@pytest.mark.parametrize("changed", [{"params": {}}, {"primes": [3]}, {"backend": 3}, {"key_id": "x"}])
def test_a_record_of_impossible_values(alice, changed) -> None:
    edited(alice, **changed)
    with pytest.raises(KeyStoreError, match=r"keys\.json"):
        store.find("alice")


def test_evaluation_keys_that_are_damaged_are_made_again(toys, alice, caplog) -> None:
    folder = alice.folder / "evaluation"
    gone, damaged, swapped = sorted(path.name for path in folder.iterdir() if path.name.startswith("rotation"))[:3]
    whole = (folder / damaged).read_bytes()
    (folder / swapped).write_bytes(whole)
    (folder / gone).unlink()
    (folder / damaged).write_bytes(whole[:999] + bytes([whole[999] ^ 1]) + whole[1000:])
    with caplog.at_level(logging.WARNING):
        result = run(twin=True)
    assert toy_model.psnr(result.images, result.plain) >= toy_model.PRECISION_DB
    said = [record.getMessage() for record in caplog.records]
    for name in (gone, damaged, swapped):
        assert (
            f"key set 'alice': the evaluation key {name.replace('-', '/')} is damaged or gone, and is made again"
            in said
        )
    assert modes(folder)[gone] == "0o600"
    caplog.clear()
    run()
    assert not caplog.records


# -- passphrases -------------------------------------------------------------------------------------------------------


@pytest.fixture
def sealed(toys: None) -> store.KeySet:
    return make_keys("alice", Config(**TOY), passphrase=WORD)


def test_a_passphrase_opens_what_it_sealed(toys, sealed, monkeypatch) -> None:
    assert sealed.record.sealed
    assert (sealed.folder / "secret").read_bytes()[:8] == sealing.MAGIC
    given = hefw.generate(**{**TOY, "keys": "alice"}, passphrase=WORD)
    assert toy_model.psnr(given.images, given.plain) >= toy_model.PRECISION_DB
    monkeypatch.setenv("HEFW_PASSPHRASE", WORD)
    assert run().record.config["keys"] == "alice"


def test_a_wrong_passphrase_and_none(toys, sealed) -> None:
    with pytest.raises(
        KeyStoreError, match=r"^key set 'alice': wrong passphrase, or the secret key's file was changed$"
    ):
        hefw.generate(**{**TOY, "keys": "alice"}, passphrase="wrong")
    with pytest.raises(KeyStoreError, match=r"^key set 'alice': it has a passphrase; give it by HEFW_PASSPHRASE"):
        run()


def test_a_sealed_secret_belongs_to_its_set(toys, sealed) -> None:
    other = make_keys("bob", Config(**TOY), passphrase=WORD)
    (sealed.folder / "secret").write_bytes((other.folder / "secret").read_bytes())
    with pytest.raises(KeyStoreError, match="wrong passphrase, or the secret key's file was changed"):
        hefw.generate(**{**TOY, "keys": "alice"}, passphrase=WORD)


def test_every_bit_of_a_sealed_secret_counts() -> None:
    data = sealing.seal(b"a secret", WORD, b"of this set")
    assert sealing.unseal(data, WORD, b"of this set") == b"a secret"
    for k in (*range(12, 40), 41, len(data) - 1):
        with pytest.raises(KeyStoreError, match="wrong passphrase"):
            sealing.unseal(data[:k] + bytes([data[k] ^ 1]) + data[k + 1 :], WORD, b"of this set")
    assert data != sealing.seal(b"a secret", WORD, b"of this set")
    for broken, said in (
        (data[:20], "is no sealed secret"),
        (data[:8] + b"\x07" + data[9:], "version 7"),
        (data[:9] + b"\x1f" + data[10:], r"n = 2\^31"),
        (data[:9] + b"\x00" + data[10:], r"n = 2\^0"),
    ):
        with pytest.raises(KeyStoreError, match=said):
            sealing.unseal(broken, WORD, b"of this set")
    with pytest.raises(KeyStoreError, match="an empty passphrase protects nothing"):
        sealing.seal(b"a secret", "", b"")


def test_the_secret_is_nowhere_in_a_sealed_set(toys, monkeypatch, tmp_path) -> None:
    """Neither in the set's files nor left behind where it was for a moment."""
    monkeypatch.setattr(folders, "MEMORY", tmp_path / "none")  # so that it is written beside, the worse case
    seen = []
    original = sealing.seal
    monkeypatch.setattr(sealing, "seal", lambda secret, *more: seen.append(secret) or original(secret, *more))
    made = make_keys("alice", Config(**TOY), passphrase=WORD)
    hefw.generate(**{**TOY, "keys": "alice", "twin": False}, passphrase=WORD)
    (secret,) = seen
    assert len(secret) > 10_000
    middle = secret[len(secret) // 4 :][:32]
    assert len(set(middle)) > 16
    files = [path for path in (tmp_path / "home").rglob("*") if path.is_file()]
    assert len(files) == 3 + len(made.record.manifest.names())
    assert not [path for path in files if middle in path.read_bytes()]


def test_without_cryptography_a_passphrase_is_refused_first(toys, home, monkeypatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(KeyStoreError, match=r"which is not installed; run: pip install 'hefw\[keys\]'"):
        make_keys("alice", Config(**TOY), passphrase=WORD)
    assert not list(home.glob("*"))
    assert make_keys("alice", Config(**TOY)).record.sealed is False


# -- what is shown under a key -----------------------------------------------------------------------------------------

EACH = 3 * toy_model.STEPS * toy_model.PIXELS // 2  # half of three latents, at every step


def test_the_count_persists_over_runs(toys, alice, monkeypatch) -> None:
    monkeypatch.setattr(client_module, "SHOWN_LIMIT", 2 * EACH)
    for runs in (1, 2):
        record = run(strategy="half").record
        assert record.ledger.shown_under_key == store.find("alice").shown == runs * EACH
    with pytest.raises(ProtocolError) as caught:
        run(strategy="half")
    assert "entries under one key; at most so many are shown" in str(caught.value)
    assert ": make new keys: hefw keys new alice-2 --labels 0-2 " in str(caught.value)
    assert store.find("alice").shown == 2 * EACH  # what was refused was not shown
    assert run().record.ledger.shown_under_key == 2 * EACH  # nothing is shown: still allowed
    assert run(strategy="half", keys=None).record.ledger.shown_under_key == EACH


def test_the_count_is_on_the_disk_before_anything_is_shown(toys, alice, monkeypatch) -> None:
    from hefw.protocol.process import ServerProcess

    seen = []

    class Watched(ServerProcess):
        def send(self, frame: bytes) -> None:
            if wire.decode(frame).kind == "step":
                seen.append(store.find("alice").shown)
            super().send(frame)

    monkeypatch.setattr("hefw.run.ServerProcess", Watched)
    run(strategy="half")
    each = EACH // toy_model.STEPS
    assert seen == [each, 2 * each, 3 * each]


def test_a_killed_run_keeps_its_count(toys, alice) -> None:
    def stop(progress: object) -> None:
        if getattr(progress, "stage", "") == "evaluate":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hefw.generate(**{**TOY, "keys": "alice", "strategy": "half"}, progress=stop)
    assert store.find("alice").shown == EACH // toy_model.STEPS


def test_a_lost_count_makes_a_set_useless(toys, alice) -> None:
    for text in ("", "{}", '{"shown": -1}', '{"shown": true}', '{"shown": "0"}', "[]"):
        (alice.folder / "shown.json").write_text(text)
        assert store.find("alice").shown is None
        with pytest.raises(KeyStoreError, match="has lost its count of decrypted entries"):
            run()


def test_counts_of_many_add_up(home) -> None:
    (home / "x").mkdir(parents=True)
    count = ShownCount(home / "x" / "shown.json", "x")
    count.begin()
    allowed: list[bool] = []
    threads = [threading.Thread(target=lambda: allowed.extend(count.add(3, 100) for _ in range(10))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count.read() == 99
    assert sum(allowed) == 33
    assert sorted(path.name for path in (home / "x").iterdir()) == ["shown.json"]
