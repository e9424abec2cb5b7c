"""What the kit runs in a process of its own: `python -m hefw.testing.child COMMAND FOLDER`.

The folder holds `spec.json` (where the backend is imported from, parameters, manifest) and `options.pickle`. Imports
nothing of pytest, nor a key holder unless a command needs one.
"""

from __future__ import annotations

import gc
import json
import os
import pickle
import select
import signal
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from hefw.core.backend import Backend, Evaluator, KeyHolder, KeyManifest
from hefw.core.errors import HefwError, ProtocolError
from hefw.core.params import CkksParams, Resolved

#: Rounds of operations in a window; memory also grows by chance, but a leak grows in every window.
ROUNDS, WARM_UP, WINDOWS = 200, 50, 3
FORK_SECONDS = 60


class Child:
    """One command on one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        spec = json.loads((folder / "spec.json").read_text())
        module, _, name = spec["target"].partition(":")
        make: Any = import_module(module)
        for part in name.split("."):
            make = getattr(make, part)
        self.backend: Backend = make(pickle.loads((folder / "options.pickle").read_bytes()))
        self.params: Resolved = self.backend.resolve(CkksParams.from_dict(spec["params"]))
        rotations = {int(step): level for step, level in spec["rotations"].items()}
        self.manifest = KeyManifest(rotations, conjugation=spec["conjugation"])

    def evaluator(self) -> Evaluator:
        """An evaluator with the keys of the folder."""
        evaluator = self.backend.evaluator(self.params)
        for path in sorted(self.folder.glob("*.key")):
            evaluator.load_keys({path.stem.replace("-", "/"): path.read_bytes()})
        return evaluator

    def holder(self) -> KeyHolder:
        """The key holder that the parent saved."""
        return self.backend.load_key_holder(self.params, self.manifest, self.folder / "secret")

    def serve(self) -> object:
        """A server: the square of the ciphertext turned by 1. Returns the modules that it took."""
        self.backend.drop_secrets()
        evaluator = self.evaluator()
        ct = evaluator.load((self.folder / "sent").read_bytes())
        ct = evaluator.rescale(evaluator.square(evaluator.rotate(ct, 1)))
        (self.folder / "result").write_bytes(evaluator.dump(ct))
        return sorted(sys.modules)

    def fork(self) -> object:
        """Computes, forks, and computes on in the child: 'done', or how the child failed."""
        evaluator = self.evaluator()
        sent = (self.folder / "sent").read_bytes()

        def compute(name: str) -> None:
            ct = evaluator.load(sent)
            ct = evaluator.rescale(evaluator.square(evaluator.rotate(ct, 1)))
            (self.folder / name).write_bytes(evaluator.dump(ct))

        compute("parent")
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                compute("child")
                outcome = "done"
            except BaseException as error:
                outcome = f"{type(error).__name__}: {error}"
            os.write(write, outcome.encode()[:4000])
            os._exit(0)  # nothing of the parent's is to be cleaned up twice
        os.close(write)  # so that the end of the child is the end of the pipe
        ready, _, _ = select.select([read], [], [], FORK_SECONDS)
        if not ready:
            os.kill(child, signal.SIGKILL)
        outcome = os.read(read, 4000).decode() if ready else "the child hangs"
        _, status = os.waitpid(child, 0)
        compute("parent")  # the parent goes on as well
        return outcome or f"the child died with status {status}"

    def hold(self) -> object:
        """A client that goes on: decrypts `sent`, encrypts its double."""
        holder = self.holder()
        values = holder.decrypt_bytes((self.folder / "sent").read_bytes()).real
        np.save(self.folder / "values.npy", values)
        params = self.params
        again = holder.encrypt_bytes(2 * values, params.max_level, float(2.0**params.params.scale_bits))
        (self.folder / "again").write_bytes(again)
        return holder.key_id.hex()

    def parse(self) -> object:
        """Hands each forged file to both sides; what each did with it."""
        readers = {"evaluator": self.evaluator().load, "key holder": self.holder().decrypt_bytes}
        seen: dict[str, str] = {}
        for path in sorted(self.folder.glob("*.forged")):
            for side, read in readers.items():
                # Before the library's parser has it: if that dies, the last line says on which bytes.
                print(f"{side} reads {path.name}", file=sys.stderr, flush=True)
                try:
                    read(path.read_bytes())
                except ProtocolError as error:  # a process that failed over it, or that it has brought down
                    seen[f"{path.stem} {side}"] = str(error)
                except HefwError as error:
                    seen[f"{path.stem} {side}"] = "refused" if str(error) else "refused without a word"
                except Exception as error:
                    seen[f"{path.stem} {side}"] = f"{type(error).__name__}: {error}"
                else:
                    seen[f"{path.stem} {side}"] = "read"
        return seen

    def repeat(self) -> object:
        """The size of a ciphertext, and by how many bytes this process and its own grew in each window of rounds."""
        evaluator, holder = self.evaluator(), self.holder()
        sent = (self.folder / "sent").read_bytes()
        weights = np.linspace(-1, 1, self.params.slots)

        def run(rounds: int) -> None:
            for _ in range(rounds):
                ct = evaluator.load(sent)
                weight = evaluator.encode(weights, ct.level, 2.0**20)
                ct = evaluator.rescale(evaluator.mul_plain(evaluator.rotate(ct, 1), weight))
                ct = evaluator.add_into(evaluator.add(ct, evaluator.drop_level(ct, ct.level)), ct)
                holder.decrypt_bytes(evaluator.dump(evaluator.square(evaluator.load(sent))))

        run(WARM_UP)
        grown = []
        for _ in range(WINDOWS):
            before = _memory()
            run(ROUNDS)
            grown.append(_memory() - before)
        return len(evaluator.dump(evaluator.load(sent))), grown


def _memory() -> int:
    """Of this process and of those that it has started: a backend may live in them."""
    gc.collect()
    process = psutil.Process()
    return sum(p.memory_info().rss for p in (process, *process.children(recursive=True)))


def main() -> None:
    """Runs the command and prints its answer as one line of JSON."""
    command, folder = sys.argv[1:]
    answer = {
        "serve": Child.serve,
        "hold": Child.hold,
        "fork": Child.fork,
        "parse": Child.parse,
        "repeat": Child.repeat,
    }[command](Child(Path(folder)))
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
