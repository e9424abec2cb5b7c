"""Making a key set for what a configuration wants: its backend, and the parameters and rotations of its plan."""

from __future__ import annotations

from hefw import cache
from hefw.config import Config
from hefw.core.progress import Progress, ProgressCallback
from hefw.keys import store
from hefw.keys.store import KeySet
from hefw.planned import program_of
from hefw.run import prepared


def make_keys(
    name: str, config: Config, *, passphrase: str | None = None, progress: ProgressCallback | None = None
) -> KeySet:
    """Plan a configuration as a server would, make keys for the plan, and keep them as the key set `name`.

    Runs whose plan has the same parameters and no other rotations can use them: other labels, seeds and pictures, and
    as many images at most. KeyStoreError if there is such a set already; other HefwErrors as `hefw.generate` has them.
    """
    store.check_new(name)
    told = progress or (lambda _: None)
    run = prepared(config.model_copy(update={"keys": None}), told)
    graph, wanted = run.asking()
    told(Progress("plan", 0, 1, "levels, scales and layouts"))
    program = program_of(graph, run.backend, wanted, cache.default())
    made_for = f"{run.model.name}, {run.protocol}"
    return store.create(name, run.backend, program.interface, made_for, passphrase, told)
