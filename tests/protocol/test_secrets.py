"""What crosses between the two processes, byte by byte, and what the server's process could do with it."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import toy_model
from processes import imported_by

from hefw.core.envelope import HEADER_SIZE
from hefw.core.errors import ProtocolError
from hefw.protocol import wire
from hefw.protocol.client import Client
from hefw.protocol.process import ServerProcess

WINDOW = 16  # bytes; a canary is found if any WINDOW of its bytes in sequence occurs
SHARED_HEADERS = 256
IMAGES = 5


class Recorder(ServerProcess):
    """The connection to a server's process, and every byte on it."""

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        self.frames: list[tuple[str, bytes]] = []

    def send(self, frame: bytes) -> None:
        self.frames.append(("sent", frame))
        super().send(frame)

    def receive(self) -> bytes:
        frame = super().receive()
        self.frames.append(("received", frame))
        return frame


@dataclass
class Run:
    frames: list[tuple[str, bytes]]
    images: np.ndarray
    secret: bytes  # as SEAL saves it
    residues: bytes  # as SEAL holds it
    labels: np.ndarray
    latents: list[np.ndarray] = field(default_factory=list)

    @property
    def traffic(self) -> bytes:
        return b"\0".join(frame for _, frame in self.frames)


def run(model_file: Path, noise: int, labels: list[int]) -> Run:
    graph, backend = toy_model.graph(), toy_model.backend()
    inputs = {
        "latent": np.random.default_rng(noise).normal(size=(IMAGES, toy_model.PIXELS)),
        "label": np.eye(toy_model.LABELS)[labels],
    }
    latents = [inputs["latent"]]
    with Recorder(model_file, "tenseal") as server:
        client = Client(server, backend)
        client.open(graph.digest, toy_model.REQUEST)
        client.generate(inputs, lambda _, outputs: latents.append(outputs["latent"]))
        client.close()
    holder = client._keys
    secret = holder._generator.secret_key()
    polynomial = secret.data()
    count = polynomial.coeff_count()
    residues = np.array([polynomial[k] for k in range(count)], dtype=np.uint64).tobytes()
    return Run(server.frames, latents[-1], holder._secret_bytes(), residues, np.array(labels), latents)


@pytest.fixture(scope="module")
def runs(model_file) -> list[Run]:
    """Two of one seed and one set of labels, and a third of others."""
    return [run(model_file, *of) for of in ((1, [0, 1, 2, 0, 1]), (1, [0, 1, 2, 0, 1]), (2, [2, 2, 0, 1, 1]))]


# -- two runs differ in payloads only ---------------------------------------------------------------------------------


def envelopes(value: object) -> Iterator[bytes]:
    if isinstance(value, bytes) and value[:4] == b"HEFW":
        yield value
    elif isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from envelopes(item)


def masked(frame: bytes) -> bytes:
    """A frame without what must differ: its checksum; in its envelopes the random key id, the payload, the digest.

    `close` is answered with figures of time, memory and process, which have nothing of the key holder's in them, and
    messages of requests with the time that the server worked.
    """
    message = wire.decode(frame)
    if "seconds" in message.fields:
        frame = wire.encode(message.kind, **{**message.fields, "seconds": 0.0})
    if "counts" in message.fields:
        fields = {**message.fields, "encode_seconds": 0.0, "peak_rss_bytes": 0}
        fields["trace"] = [item[:-1] for item in fields["trace"]]  # without seconds
        fields["provenance"] = {**fields["provenance"], "process": 0}
        return wire.encode("done", **fields)
    out = bytearray(frame)
    out[16:20] = bytes(4)
    for envelope in envelopes(message.fields):
        at = frame.index(envelope)
        out[at + 44 : at + 60] = bytes(16)
        out[at + HEADER_SIZE - 32 : at + len(envelope)] = bytes(len(envelope) - HEADER_SIZE + 32)
    return bytes(out)


def test_two_runs_look_alike(runs) -> None:
    """Other noise, labels and keys: the same messages of the same sizes, and the same bytes around payloads."""
    first, _, other = runs
    assert [way for way, _ in first.frames] == [way for way, _ in other.frames]
    assert [wire.decode(f).kind for _, f in first.frames] == [wire.decode(f).kind for _, f in other.frames]
    for (_, one), (_, two) in zip(first.frames, other.frames, strict=True):
        if wire.decode(one).kind != "done":  # its figures are numbers of varying length
            assert len(one) == len(two)
        assert masked(one) == masked(two)


def test_the_mask_leaves_what_matters(runs) -> None:
    """The mask hides nothing but payloads: what is left of a frame is nearly all of the rest of it."""
    for _, frame in runs[0].frames:
        message = wire.decode(frame)
        payloads = sum(len(e) - HEADER_SIZE + 32 + 16 for e in envelopes(message.fields))
        outside = len(frame) - payloads
        assert outside < 3_000 or message.kind in ("manifest", "done")
        if not payloads and message.kind != "done":
            assert masked(frame)[20:] == frame[20:]


def test_one_seed_gives_one_picture_and_other_ciphertexts(runs) -> None:
    first, again, other = runs
    assert np.abs(first.images - again.images).max() <= 2 / 255
    assert np.abs(first.images - other.images).max() > 0.5
    seen = set()
    for each in runs:
        payloads = [e[HEADER_SIZE:] for _, f in each.frames for e in envelopes(wire.decode(f).fields)]
        assert len(payloads) > 2 * toy_model.STEPS
        assert not seen & set(payloads)
        seen |= set(payloads)


def test_key_ids_are_random(runs) -> None:
    ids = [{e[44:60] for _, f in each.frames for e in envelopes(wire.decode(f).fields)} for each in runs]
    assert all(len(found) == 1 for found in ids)
    assert len(set.union(*ids)) == len(runs)


# -- canaries ---------------------------------------------------------------------------------------------------------


@cache
def windows(data: bytes) -> set[bytes]:
    """All windows of a canary that are not trivial (runs of few distinct bytes occur anywhere)."""
    found = (data[k : k + WINDOW] for k in range(len(data) - WINDOW + 1))
    return {window for window in found if len(set(window)) > 6}


def occur(canary: bytes, traffic: bytes) -> bool:
    wanted = windows(canary)
    assert wanted
    table = np.zeros(2**24, dtype=np.bool_)  # which three bytes begin a window
    table[np.frombuffer(b"".join(window[:3] + b"\0" for window in wanted), dtype="<u4")] = True
    for offset in range(4):
        words = np.frombuffer(traffic, dtype="<u4", offset=offset, count=(len(traffic) - offset) // 4)
        candidates = np.flatnonzero(table[words & 0xFFFFFF]) * 4 + offset
        if any(traffic[k : k + WINDOW] in wanted for k in candidates):
            return True
    return False


def test_a_canary_would_be_found(runs) -> None:
    """The search finds what is there, planted at any offset or sent as it is."""
    first = runs[0]
    for offset in range(8):
        at = 100_000 + offset
        assert occur(first.secret, first.traffic[:at] + first.secret[1000 : 1000 + WINDOW] + first.traffic[at:])
    envelope = next(e for _, f in first.frames for e in envelopes(wire.decode(f).fields))
    assert occur(envelope[HEADER_SIZE:], first.traffic)


def test_the_secret_key_is_not_on_the_wire(runs) -> None:
    """Neither as SEAL saves it (compressed; without the header that all its objects share), nor its residues."""
    for each in runs:
        # The beginning is headers, parms_id, sizes and a scale of 1: all of SEAL's objects here have them.
        assert len(each.secret) > 50 * SHARED_HEADERS
        assert len(set(each.secret[SHARED_HEADERS:])) > 200
        assert not occur(each.secret[SHARED_HEADERS:], each.traffic)
        assert not occur(each.residues, each.traffic)


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16])
def test_latents_and_images_are_not_on_the_wire(runs, kind) -> None:
    for each in runs:
        arrays = [array for latent in each.latents for array in (latent, latent.T, latent[:, ::-1])]
        canary = b"".join(np.ascontiguousarray(array, dtype=kind).tobytes() for array in arrays)
        assert not occur(canary, each.traffic)


def test_quantised_images_are_not_on_the_wire(runs) -> None:
    for each in runs:
        grey = np.clip((each.images + 1) * 127.5, 0, 255).astype(np.uint8)
        assert not occur(grey.tobytes(), each.traffic)


@pytest.mark.parametrize("kind", ["<f8", ">f8", "<f4", "<i8", "<i4"])
def test_labels_are_not_on_the_wire(runs, kind) -> None:
    """One-hot rows are nearly all zeros, so that all of them together are the canary."""
    for each in runs:
        onehot = np.eye(toy_model.LABELS)[each.labels]
        for array in (onehot, onehot.T, each.labels + 1):
            assert np.ascontiguousarray(array).astype(kind).tobytes() not in each.traffic


# -- what the server's process can do ---------------------------------------------------------------------------------


def imported(model_file: Path, backend: str) -> list[str]:
    """Every module that a server's process imports during a whole session, in order."""
    graph, made = toy_model.graph(), toy_model.backend(backend)
    with ServerProcess(model_file, backend, python=(sys.executable, "-X", "importtime")) as server:
        client = Client(server, made)
        client.open(graph.digest, toy_model.REQUEST)
        client.generate(toy_model.inputs(2))
        client.close()
        return imported_by(server.stderr())


@pytest.mark.parametrize("backend", ["tenseal", "simulator"])
def test_modules_of_the_servers_process(model_file, backend) -> None:
    names = set(imported(model_file, backend))
    assert f"hefw.backends.{backend}.evaluator" in names
    forbidden = ("torch", "diffusers", "sklearn", "transformers", "hefw.protocol.client", "hefw.run", "hefw.config")
    assert not [n for n in names if n.split(".")[0] in forbidden or n in forbidden]
    assert not [n for n in names if n.endswith(("keyholder", "tenseal.secret")) or n == "hefw.core.divergence"]
    ours = {n: defined(n) for n in names if n.split(".")[0] == "hefw"}
    with_decrypt = {n for n, found in ours.items() if any("decrypt" in d.lower() for d in found)}
    assert with_decrypt == {"hefw.core.backend"}  # the abstract KeyHolder


def defined(module: str) -> set[str]:
    """The names of functions, methods and classes that a module of hefw defines."""
    tree = ast.parse(source(module))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {node.name for node in ast.walk(tree) if isinstance(node, kinds)}


def source(module: str) -> str:
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).read_text()


@pytest.mark.parametrize("start", ["hefw.protocol.server", "hefw.protocol.serve"])
def test_imports_lead_to_no_key_holder(start) -> None:
    """From the sources: whatever is imported at import time, however deep."""
    found, todo = set(), [start]
    while todo:
        module = todo.pop()
        if module not in found:
            found.add(module)
            todo += list(imports(module))
    assert "hefw.core.runner" in found
    for module in found:
        for node in ast.walk(ast.parse(source(module))):
            if isinstance(node, ast.ClassDef):
                bases = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
                assert "KeyHolder" not in bases, f"{module}.{node.name}"
    assert not [m for m in found if re.search(r"keyholder|divergence|backends\.\w+\.|\.models\.|client", m)]


def imports(module: str) -> Iterator[str]:
    """The modules of hefw that a module imports at its top level."""
    for node in ast.parse(source(module)).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "hefw")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "hefw":
            yield str(node.module)
            for alias in node.names:
                try:
                    if find_spec(f"{node.module}.{alias.name}"):
                        yield f"{node.module}.{alias.name}"
                except ModuleNotFoundError:
                    pass  # a name within a module


PROBE = """
import sys
from pathlib import Path
from hefw.protocol import serve

def probe(server, stream):
    import _sealapi_cpp as seal
    names = [n for n in dir(seal) if any(word in n for word in ("Decrypt", "Encryptor", "SecretKey", "KeyGenerator"))]
    print("names:", names, file=sys.stderr)
    original(server, stream)

original, serve.serve = serve.serve, probe
sys.argv = ["serve", *sys.argv[sys.argv.index("--model"):]]
sys.exit(serve.main())
"""


def test_the_servers_process_has_no_decryptor(model_file, tmp_path) -> None:
    """SEAL's binding has one module for both sides; the server's process takes the key holder's part out of it."""
    (tmp_path / "probe.py").write_text(PROBE)
    with ServerProcess(model_file, "tenseal", python=(sys.executable, str(tmp_path / "probe.py"))) as server:
        client = Client(server, toy_model.backend())
        client.open(toy_model.graph().digest, toy_model.REQUEST)
        inputs = toy_model.inputs(3)
        found = client.generate(inputs)["latent"]
        assert server.stderr() == "names: []\n"
    assert toy_model.psnr(found, toy_model.expected(toy_model.graph(), inputs)) >= toy_model.PRECISION_DB


def test_a_server_says_nothing_of_what_it_was_sent(model_file) -> None:
    """Its standard streams stay empty over a whole session."""
    with ServerProcess(model_file, "tenseal") as server:
        client = Client(server, toy_model.backend())
        client.open(toy_model.graph().digest, toy_model.REQUEST)
        client.generate(toy_model.inputs(2))
        client.close()
        server.send(b"x" * 100)
        assert wire.decode(server.receive()).kind == "error"
        with pytest.raises(ProtocolError, match=r"ended with exit code 0$"):
            server.receive()
        assert server.stderr() == ""
