"""What a key set is, as `keys.json` holds it: nothing secret."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from hefw.core.backend import KeyManifest
from hefw.core.errors import KeyStoreError, ParameterError
from hefw.core.params import CkksParams, Resolved

KeyId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Positive = Annotated[int, Field(gt=0)]


class KeySetRecord(BaseModel):
    """One key set. `params` are those of `CkksParams.to_dict`, with the primes that the backend took for them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    created: AwareDatetime
    backend: str
    library: str
    key_id: KeyId
    sealed: bool = Field(description="the secret key is encrypted under a passphrase")
    params: dict[str, Any]
    primes: tuple[Positive, ...]
    special_primes: tuple[Positive, ...]
    rotations: dict[int, NonNegativeInt]
    relinearisation: bool
    conjugation: bool
    bootstrap: bool
    made_for: str = Field(description="the model and protocol that the keys were made for, in words")
    simulated: bool = False

    @property
    def resolved(self) -> Resolved:
        """The parameters with their primes."""
        return Resolved(CkksParams.from_dict(self.params), self.backend, self.primes, self.special_primes)

    @property
    def manifest(self) -> KeyManifest:
        """Which evaluation keys there are."""
        return KeyManifest(dict(self.rotations), self.relinearisation, self.conjugation, self.bootstrap)

    @property
    def belonging(self) -> bytes:
        """What a sealed secret is bound to: backend, parameters and key."""
        return self.backend.encode() + self.resolved.digest + bytes.fromhex(self.key_id)

    def to_json(self) -> str:
        """The text of keys.json."""
        return self.model_dump_json(indent=2) + "\n"


def read(path: Path, name: str) -> KeySetRecord:
    """The record of a key set; KeyStoreError if it is not one. OSError if it cannot be read."""
    try:
        record = KeySetRecord.model_validate(json.loads(path.read_bytes()))
        assert record.resolved.max_level >= 0  # the parameters are some
    except ParameterError as error:
        raise KeyStoreError(f"key set {name!r}: {path.name} has parameters that do not exist: {error}") from None
    except (ValueError, ValidationError, RecursionError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else None
        where = ".".join(map(str, first["loc"])) + ": " + first["msg"] if first else str(error)
        raise KeyStoreError(
            f"key set {name!r}: {path.name} is damaged or of another hefw ({where}); restore it, or make new keys: "
            f"hefw keys remove {name}"
        ) from None
    return record
