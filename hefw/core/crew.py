"""One affine region by several processes: most libraries hold Python's lock, so that threads would not help.

The others are forked from an engine's process once it has its keys and weights: both are in memory once, and a program
is known by where it is in memory. Ciphertexts go through shared memory as the numbers that they consist of
(`Evaluator.residues`). Baby steps are dealt out first, then giant steps; the result is that of one process, bit by bit.
Meanwhile each process uses one thread (`Evaluator.threads`), and in between the first one uses all.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, NoReturn, TypeVar

import numpy as np

from hefw.core.backend import Ciphertext, Evaluator, Plaintext
from hefw.core.errors import ProtocolError, line
from hefw.core.linear import Strand, Transform
from hefw.core.memory import private_bytes
from hefw.core.process import end_with
from hefw.core.program import LinearOp
from hefw.core.turning import Link, together

#: Rotations and products that a transform must have for dealing it out to be worth the messages.
WORTHWHILE = 16
#: A rotation takes as long as so many products with a plaintext.
ROTATION = 8
#: Shared memory that ciphertexts of one transform may take, in bytes; larger ones are evaluated by one process.
MOST_SHARED = 1 << 30

#: Asks another process for its memory, instead of a task.
MEMORY = "memory"

Part = TypeVar("Part")
#: Of a stage of an operation, by its number.
WeightsOf = Callable[[LinearOp, int], Sequence[Plaintext]]
Name = tuple[str, int]


@dataclass(frozen=True)
class Deal:
    """Which process (rank) does what of a transform: baby steps, and strands of groups by output."""

    babies: tuple[tuple[tuple[int, Link], ...], ...]  # by rank: of an input, which is there before the step
    strands: tuple[tuple[tuple[Strand, ...], ...], ...]  # by rank, then by output


def deal(transform: Transform, ranks: int) -> Deal:
    """An even deal: the largest part to the process that has least to do, then the next one.

    A strand goes to one process: what is in it is made of each other.
    """
    babies = [
        [(source, link) for link in strand]
        for source, steps in enumerate(transform.babies)
        for strand in transform.turns(steps)
    ]
    strands = [(k, strand) for k in range(len(transform.outputs)) for strand in transform.strands(k)]
    turned = _dealt(babies, len, ranks)
    summed = _dealt(strands, lambda part: sum(len(group.terms) + ROTATION * bool(by) for group, by in part[1]), ranks)
    outputs = range(len(transform.outputs))
    return Deal(
        tuple(tuple(turn for some in mine for turn in some) for mine in turned),
        tuple(tuple(tuple(strand for at, strand in mine if at == k) for k in outputs) for mine in summed),
    )


def _dealt(parts: Sequence[Part], effort: Callable[[Part], int], ranks: int) -> list[list[Part]]:
    """The parts of each process."""
    load, dealt = [0] * ranks, [[] for _ in range(ranks)]  # type: ignore[var-annotated]
    for part in sorted(parts, key=effort, reverse=True):
        rank = load.index(min(load))
        load[rank] += effort(part)
        dealt[rank].append(part)
    return dealt


class Crew:
    """Forked processes that evaluate linear transforms of a program together with the one that made them.

    `weights` gives plaintexts of a stage of an operation, in each process its own way: those that exist at the fork are
    shared. A matrix of numbers, whose products libraries make together, is left to one process.
    """

    def __init__(self, evaluator: Evaluator, ops: Iterable[LinearOp], weights: WeightsOf, processes: int) -> None:
        """Fork. The evaluator has its keys, and `reaches_residues`; this process runs no other thread of Python's."""
        words = 2 * (evaluator.params.max_level + 1) * evaluator.params.params.ring_dimension
        dealt = [
            _Task(op, number, deal(stage.transform, processes))
            for op in ops
            for number, stage in enumerate(op.stages)
            if not stage.transform.numeric
        ]
        self._tasks = {task.name: task for task in dealt if task.worthwhile and task.slots * words * 8 <= MOST_SHARED}
        slots = max((task.slots for task in self._tasks.values()), default=1)
        self._hand = _Hand(evaluator, weights, _Shared(evaluator, slots, words), 0)
        self._others: list[_Other] = []
        try:
            if self._tasks:
                for rank in range(1, processes):
                    self._others.append(_Other(replace(self._hand, rank=rank), self._tasks))
        except BaseException:
            self.close()
            raise

    def takes(self, op: LinearOp, number: int = 0) -> bool:
        """Whether a stage of an operation is one to share."""
        return bool(self._others) and (op.name, number) in self._tasks

    def transform(self, op: LinearOp, number: int, inputs: Sequence[Ciphertext]) -> list[Ciphertext]:
        """`Evaluator.linear_transform` of what a stage of an operation reads.

        ProtocolError if another process has ended, or its library has failed.
        """
        task, hand = self._tasks[op.name, number], self._hand
        with hand.alone():
            totals = self._totals(task, inputs)
        return [hand.evaluator.fold(total, task.transform.folds) for total in totals if total is not None]

    def _totals(self, task: _Task, inputs: Sequence[Ciphertext]) -> list[Ciphertext | None]:
        """The sum of each output, before partial sums are added up."""
        hand = self._hand
        for slot, ct in enumerate(inputs):
            hand.shared.write(slot, ct)
        for other in self._others:
            other.send((task.name, [(ct.level, ct.scale) for ct in inputs]))
        own = hand.turn(task, inputs)
        for other in self._others:
            other.receive()
        for other in self._others:
            other.send(None)
        totals = hand.add_up(task, inputs, own)
        for rank, other in enumerate(self._others, start=1):
            done: _Done = other.receive()
            hand.evaluator.counts += done.counts
            for k, scale in enumerate(done.scales):
                if scale is not None:
                    part = hand.shared.read(task.slot_of_sum(rank, k), inputs[0].level, scale)
                    total = totals[k]
                    totals[k] = part if total is None else hand.evaluator.add_into(total, part)
        return totals

    @property
    def processes(self) -> int:
        """How many there are, this one included."""
        return 1 + len(self._others)

    @property
    def private_bytes(self) -> int:
        """Memory that the other processes have of their own, all together; the libraries keep what they once took."""
        for other in self._others:
            other.send(MEMORY)
        return sum(other.receive() for other in self._others)

    def close(self) -> None:
        """End the other processes."""
        for other in self._others:
            other.close()
        self._others = []


class _Task:
    """A stage and how it is dealt out; its slots of shared memory: inputs, baby steps, then partial sums."""

    def __init__(self, op: LinearOp, number: int, dealt: Deal) -> None:
        self.op = op
        self.number = number
        self.transform = op.stages[number].transform
        self.dealt = dealt
        names = [(k, 0) for k in range(len(self.transform.babies))]
        names += [(source, link.step) for some in dealt.babies for source, link in some]
        self.slot_of = {name: slot for slot, name in enumerate(names)}

    @property
    def name(self) -> Name:
        """By which processes know it."""
        return self.op.name, self.number

    @property
    def slots(self) -> int:
        """Ciphertexts in shared memory."""
        return self.slot_of_sum(len(self.dealt.strands), 0)

    def slot_of_sum(self, rank: int, output: int) -> int:
        """Where another process than the first puts its partial sum of an output."""
        return len(self.slot_of) + (rank - 1) * len(self.transform.outputs) + output

    @property
    def worthwhile(self) -> bool:
        """Whether there is enough to do."""
        return ROTATION * len(self.transform.rotations) + self.transform.products >= WORTHWHILE * ROTATION


class _Shared:
    """Ciphertexts in memory that forked processes have in common."""

    def __init__(self, evaluator: Evaluator, slots: int, words: int) -> None:
        self._evaluator = evaluator
        self._numbers = np.frombuffer(mmap.mmap(-1, slots * words * 8), dtype=np.uint64).reshape(slots, words)

    def write(self, slot: int, ct: Ciphertext) -> None:
        """Put a ciphertext into a slot."""
        numbers = self._evaluator.residues(ct).reshape(-1)
        self._numbers[slot, : len(numbers)] = numbers

    def read(self, slot: int, level: int, scale: float) -> Ciphertext:
        """A copy of the ciphertext in a slot."""
        words = 2 * (level + 1) * self._evaluator.params.params.ring_dimension
        return self._evaluator.of_residues(self._numbers[slot, :words], level, scale)


@dataclass(frozen=True)
class _Hand:
    """What one process does of a task."""

    evaluator: Evaluator
    weights: WeightsOf
    shared: _Shared
    rank: int

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """By one thread: the other processes have the other cores."""
        threads, self.evaluator.threads = self.evaluator.threads, 1
        try:
            yield
        finally:
            self.evaluator.threads = threads

    def turn(self, task: _Task, inputs: Sequence[Ciphertext]) -> dict[tuple[int, int], Ciphertext]:
        """Its baby steps, which the others find in shared memory."""
        done = {(source, 0): ct for source, ct in enumerate(inputs)}
        links: dict[int, list[Link]] = {}
        for source, link in task.dealt.babies[self.rank]:
            links.setdefault(source, []).append(link)
        for source, some in links.items():
            for before, steps in together(some):
                turned = self.evaluator.rotate_many(done[source, before], [link.by for link in steps])
                for link, ct in zip(steps, turned, strict=True):
                    done[source, link.step] = ct
                    self.shared.write(task.slot_of[source, link.step], ct)
        return done

    def add_up(
        self, task: _Task, inputs: Sequence[Ciphertext], own: Mapping[tuple[int, int], Ciphertext]
    ) -> list[Ciphertext | None]:
        """Its strands of each output, added; None where it has none."""
        weights = self.weights(task.op, task.number)
        strands = task.dealt.strands[self.rank]
        groups = [group for some in strands for strand in some for group, _ in strand]
        wanted = {(term.source, term.baby) for group in groups for term in group.terms}
        rotated: list[dict[int, Ciphertext]] = [{} for _ in inputs]
        for source, step in sorted(wanted):
            ct = own.get((source, step))
            if ct is None:
                ct = self.shared.read(task.slot_of[source, step], inputs[source].level, inputs[source].scale)
            rotated[source][step] = ct
        return [self.evaluator.sum_of_strands(rotated, some, weights) if some else None for some in strands]


@dataclass(frozen=True)
class _Done:
    """What another process tells: the scale of its partial sum of each output, and what it did."""

    scales: tuple[float | None, ...]
    counts: Counter[str]


class _Other:
    """Another process, as the first one sees it."""

    def __init__(self, hand: _Hand, tasks: Mapping[Name, _Task]) -> None:
        self._connection, theirs = Pipe()
        lifeline, held = socket.socketpair()
        self._lifeline = held
        self._pid = os.fork()
        if not self._pid:
            _work(hand, tasks, theirs, lifeline)
        theirs.close()
        lifeline.close()

    def send(self, message: Any) -> None:
        """Send, or say that it has ended."""
        try:
            self._connection.send(message)
        except OSError:
            raise self._ended() from None

    def receive(self) -> Any:
        """What it answers; its error as ProtocolError."""
        try:
            answer = self._connection.recv()
        except (EOFError, OSError):
            raise self._ended() from None
        if isinstance(answer, str):
            raise ProtocolError(f"a process of the server failed: {answer}")
        return answer

    def _ended(self) -> ProtocolError:
        return ProtocolError("a process of the server has ended; was there enough memory? try server_processes: 1")

    def close(self) -> None:
        """End it, whatever it does."""
        self._connection.close()
        self._lifeline.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)


def _work(hand: _Hand, tasks: Mapping[Name, _Task], connection: Connection, lifeline: socket.socket) -> NoReturn:
    """The life of a forked process: it ends with the first one, and never returns to what that was doing."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _close_files_but(connection.fileno(), lifeline.fileno())
        end_with(lifeline.fileno())
        while True:
            _serve(hand, tasks, connection)
    finally:  # also after EOFError: the first process has closed its end
        os._exit(0)


def _serve(hand: _Hand, tasks: Mapping[Name, _Task], connection: Connection) -> None:
    asked = connection.recv()
    if asked == MEMORY:  # not after each task: counting pages takes as long as some rotations
        connection.send(private_bytes())
        return
    name, given = asked
    evaluator, task = hand.evaluator, tasks[name]
    before = Counter(evaluator.counts)
    evaluator.threads = 1
    try:
        inputs = [hand.shared.read(slot, level, scale) for slot, (level, scale) in enumerate(given)]
        own = hand.turn(task, inputs)
        connection.send(True)
        connection.recv()
        sums = hand.add_up(task, inputs, own)
        for k, total in enumerate(sums):
            if total is not None:
                hand.shared.write(task.slot_of_sum(hand.rank, k), total)
        scales = tuple(None if total is None else total.scale for total in sums)
        connection.send(_Done(scales, Counter(evaluator.counts) - before))
    except EOFError:
        raise
    except Exception as error:  # a library may raise anything
        connection.send(line(f"{type(error).__name__}: {error}"))


def _close_files_but(*kept: int) -> None:
    """Sockets of the first process: who waits for their end must not wait for this one's."""
    last = 2
    for fd in sorted(kept):
        os.closerange(last + 1, fd)
        last = fd
    os.closerange(last + 1, os.sysconf("SC_OPEN_MAX"))
