"""Key generation of every backend: one rotation key more or less, relinearisation and conjugation with them."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.prepared import BACKENDS, backend_of, params_of
from hefw.core.backend import KeyManifest

ROTATIONS = (1, 8)


@pytest.mark.parametrize("count", ROTATIONS)
@pytest.mark.parametrize("name", BACKENDS)
def test_keys_to_bytes(benchmark: Any, name: str, count: int) -> None:
    backend = backend_of(name)
    resolved = params_of(backend)
    manifest = KeyManifest(dict.fromkeys(range(1, count + 1), resolved.max_level), conjugation=True)

    def keys() -> int:
        return sum(len(data) for _, data in backend.keygen(resolved, manifest).evaluation_keys())

    benchmark.extra_info["bytes"] = benchmark.pedantic(keys, rounds=2)
