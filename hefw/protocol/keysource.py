"""Where a session's keys come from, and how many decrypted entries were shown under them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from hefw.core.backend import Backend, KeyHolder
from hefw.core.program import Interface


class KeySource(ABC):
    """The key holder's keys for one session. Counts what is shown under them, before it is shown."""

    #: Stage of progress while the evaluation keys are sent.
    stage = "keygen"
    #: Whether these keys will be used again: a server may then keep what it encoded for them.
    kept = False
    #: What to do when no more may be shown under these keys.
    next_step = "draw fewer images or steps a run, or encrypt more"

    @abstractmethod
    def holder(self, interface: Interface) -> KeyHolder:
        """A key holder that serves a program; HefwError if these keys do not."""

    @abstractmethod
    def evaluation_keys(self, interface: Interface, holder: KeyHolder) -> Iterator[tuple[str, bytes]]:
        """The program's evaluation keys as envelopes, by the names and in the order of its manifest."""

    @property
    @abstractmethod
    def shown(self) -> int:
        """Decrypted entries that a server was shown under these keys so far, in all sessions."""

    @abstractmethod
    def show(self, entries: int, limit: int) -> bool:
        """Count so many more entries as shown, unless they would be more than `limit` in all; whether it is allowed.

        The count is kept before this returns.
        """


class NewKeys(KeySource):
    """Keys that are made for one session and forgotten with it."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._shown = 0

    def holder(self, interface: Interface) -> KeyHolder:
        """A new secret key."""
        return self._backend.keygen(interface.params, interface.keys)

    def evaluation_keys(self, interface: Interface, holder: KeyHolder) -> Iterator[tuple[str, bytes]]:
        """Made as they are asked for."""
        return holder.evaluation_keys()

    @property
    def shown(self) -> int:
        """In this session."""
        return self._shown

    def show(self, entries: int, limit: int) -> bool:
        """In memory: the keys live no longer."""
        if self._shown + entries > limit:
            return False
        self._shown += entries
        return True
