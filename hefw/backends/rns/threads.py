"""Threads that share work while Python's lock is let go."""

from __future__ import annotations

import functools
import itertools
import os
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue

Work = Callable[[], None]


def helped(work: Sequence[Work]) -> None:
    """Have other threads do this as soon as they can: nobody waits for them, and it must not fail."""
    _helpers.take(work)


def shared(threads: int, count: int, some: Callable[[int, int], None]) -> None:
    """So many pieces of work, each of which `some(first, last)` does by itself, by several threads."""
    cuts = [count * k // threads for k in range(threads + 1)] if threads > 1 else [0, count]
    own, *others = [(first, last) for first, last in itertools.pairwise(cuts) if first < last]
    ends: SimpleQueue[BaseException | None] = SimpleQueue()

    def told(first: int, last: int) -> None:
        try:
            some(first, last)
        except BaseException as error:  # told to who asked
            ends.put(error)
        else:
            ends.put(None)

    if others:
        _helpers.take([functools.partial(told, *one) for one in others])
    try:
        some(*own)
    finally:  # the others write to memory of this one
        errors = [error for _ in others if (error := ends.get()) is not None]
    if errors:
        raise errors[0]


class _Helpers:
    """Threads besides those that ask. A process that forks has none until it asks again."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Work | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()

    @property
    def running(self) -> int:
        """How many there are."""
        return len(self._threads)

    def take(self, jobs: Sequence[Work]) -> None:
        """Have some of them do this."""
        with self._lock:
            while len(self._threads) < max(len(jobs), (os.cpu_count() or 2) - 1):
                self._threads.append(threading.Thread(target=self._work, name="hefw-loops", daemon=True))
                self._threads[-1].start()
            for job in jobs:
                self._jobs.put(job)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            del job  # what it refers to is free while this one waits

    def end(self) -> None:
        """End them all when they have done their work; nobody is taken on until `again`."""
        self._lock.acquire()
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def again(self) -> None:
        """After `end`."""
        self._lock.release()


_helpers = _Helpers()
os.register_at_fork(before=_helpers.end, after_in_parent=_helpers.again, after_in_child=_helpers.again)
