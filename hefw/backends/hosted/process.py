"""A worker as the process that started it sees it: calls, objects that live there, and its end."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from hefw.backends.hosted.channel import SMALL, Channel, Failure
from hefw.core import codec
from hefw.core.backend import Ciphertext, Plaintext
from hefw.core.errors import (
    CapabilityError,
    EnvelopeError,
    LoweringError,
    PluginError,
    ProtocolError,
    error_class,
    line,
)
from hefw.core.process import ChildProcess, environment
from hefw.core.progress import Progress, ProgressCallback

Side = Literal["key holder", "evaluator"]
START = Path(__file__).with_name("start.py")
#: What a signal that ended a worker tells.
SIGNALS: dict[int, str] = {
    signal.SIGKILL: "killed, as when memory runs out",
    signal.SIGSEGV: "a crash in native code",
    signal.SIGBUS: "a crash in native code",
    signal.SIGABRT: "native code gave up",
    signal.SIGILL: "native code for another processor",
}
#: What to do about the end of a worker.
NEXT: dict[Side, str] = {
    "evaluator": "open a new session, which starts another one",
    "key holder": "secret keys that were not saved are lost; make new keys, which starts another one",
}


class Worker:
    """One side of one backend in a process of its own. Calls of several threads take turns.

    After its end, or a call that was interrupted, every call raises the one ProtocolError that says what happened.
    """

    def __init__(
        self,
        backend: str,
        side: Side,
        target: str,
        options: Mapping[str, Any] | None,
        python: Sequence[str],
        patience: float,
    ) -> None:
        """Start it and make the backend there; see `HostedBackend` for the arguments."""
        self.backend = backend
        self.side = side
        self.patience = patience
        self.name = f"the {side}'s worker of backend {backend!r}"
        self._python = python[0]
        #: Numbers in the worker of what this process has as objects: programs by their weights, transforms.
        self.shared: weakref.WeakKeyDictionary[Any, Handle] = weakref.WeakKeyDictionary()
        self._owner = os.getpid()
        self._lock = threading.RLock()
        self._busy = ""
        self._started = False
        self._over: str | None = None  # how it ended
        self._released: deque[int] = deque()
        command = [*python, str(START), json.dumps(places("hefw", target)), "--lifeline"]
        self._lifeline, theirs = socket.socketpair()
        try:
            self._child = ChildProcess(self.name, [*command, str(theirs.fileno())], _environment(), [theirs.fileno()])
        except ProtocolError:
            self._lifeline.close()
            raise
        finally:
            theirs.close()
        self._channel = Channel(self._child.connection)
        _running.add(self)
        self._finalizer = weakref.finalize(self, _end, self._child, self._lifeline, self._owner)
        try:
            self.call("start", type(None), side, target, None if options is None else dict(options), patience=patience)
        except BaseException:
            self.end()
            raise
        self._started = True

    @property
    def pid(self) -> int:
        """The process id."""
        return self._child.pid

    @property
    def alive(self) -> bool:
        """Whether calls can be answered. CapabilityError in a forked child of the process that started it."""
        self._check_process()
        return self._over is None and self._child.running

    def call(
        self,
        name: str,
        kind: Any,
        *arguments: Any,
        patience: float | None = None,
        most: int = SMALL,
        progress: ProgressCallback | None = None,
    ) -> Any:
        """What the worker answers.

        Parameters
        ----------
        kind : the type that the answer must have, an annotation.
        patience : seconds after which a worker that does not answer is ended; None if it is fine as long as it lives.
        most : the largest answer, in bytes.
        progress : called with what the worker tells before it answers.

        Errors of hefw that are raised there are raised here; anything else is one ProtocolError.
        """
        self._check_process()
        with self._lock:
            if self._busy:
                raise ProtocolError(f"{self.name} is busy with {self._busy!r}; call it after that, not during it")
            if self._over is not None:
                raise ProtocolError(self._over)
            self._busy = name
            try:
                answer, failure = self._exchange(name, kind, arguments, patience, most, progress)
            finally:
                self._busy = ""
        if failure is None:
            return answer
        error, text = failure
        if error is None:
            raise ProtocolError(f"{self.name} failed at {name!r}: {line(text)}")
        raise error_class(error)(line(text))

    def number(self, handle: Any) -> int:
        """The number of an object of this worker; ProtocolError for any other."""
        if not isinstance(handle, Handle) or handle.worker is not self:
            raise ProtocolError(f"what was given does not live in {self.name}; send it as bytes: dump, then load")
        return handle.number

    def sent(self, operand: Any) -> Any:
        """An operand as it is sent: with numbers in place of handles."""
        if isinstance(operand, Ciphertext):
            return Ciphertext(self.number(operand.handle), operand.level, operand.scale, operand.size)
        if isinstance(operand, Plaintext):
            return Plaintext(self.number(operand.handle), operand.level, operand.scale)
        if isinstance(operand, (tuple, list)):
            return [self.sent(item) for item in operand]
        return operand

    def release(self, number: int) -> None:
        """Let the worker forget an object with the next call. From `__del__`, at any time: it must not wait."""
        self._released.append(number)

    def flush(self) -> None:
        """Let it forget now what was released."""
        if self._over is None and self._released:
            self.call("release", type(None), patience=self.patience)

    def end(self, how: str = "was ended by this process") -> ProtocolError:
        """End the worker, whatever it is doing; the error that its calls raise from now on."""
        if self._over is None:
            step = NEXT[self.side] if self._started else f"it was started by {self._python}"
            self._over = f"{self.name} {how}; {step}"
        self._finalizer()
        return ProtocolError(self._over)

    def let_go(self) -> None:
        """In a forked child: its copies of the sockets must not keep the worker alive when the owner has died."""
        self._channel.close()
        self._lifeline.close()

    def _exchange(
        self,
        name: str,
        kind: Any,
        arguments: tuple[Any, ...],
        patience: float | None,
        most: int,
        progress: ProgressCallback | None,
    ) -> tuple[Any, Failure | None]:
        """The answer or the failure that was told. Anything else that happens on the way is the worker's end."""
        deadline = None if patience is None else time.monotonic() + patience
        released = [self._released.popleft() for _ in range(len(self._released))]
        try:
            message = codec.parts((name, released, arguments))
        except LoweringError:
            self._released.extend(released)  # nothing was sent
            raise
        try:
            self._send(message)
            while True:
                told, payload = self._receive(name, most, deadline)
                if told == "progress":
                    step: Progress = self._decode(name, payload, Progress)
                    if progress is not None:
                        progress(Progress(line(step.stage, 40), step.done, step.total, line(step.detail, 80)))
                elif told == "error":
                    return None, self._decode(name, payload, Failure)
                else:
                    return self._decode(name, payload, kind), None
        except BaseException:  # Ctrl-C, or what the caller does with progress: native code cannot be stopped otherwise
            self.end(f"was ended when its call {name!r} was interrupted")
            raise

    def _send(self, message: list[codec.Buffer]) -> None:
        try:
            self._channel.send("call", message)
        except ProtocolError:
            raise self._died() from None

    def _receive(self, name: str, most: int, deadline: float | None) -> tuple[str, bytearray]:
        try:
            received = self._channel.receive(most, deadline)
        except TimeoutError:
            words = self._child.last_words()
            raise self.end(f"did not answer {name!r} in time and was ended{words}") from None
        except EnvelopeError as error:
            raise self.end(f"sent no answer to {name!r} ({error}) and was ended") from None
        except ProtocolError:
            received = None
        if received is None:
            raise self._died()
        return received

    def _decode(self, name: str, payload: bytearray, kind: Any) -> Any:
        try:
            return codec.decode(payload, kind)
        except LoweringError as error:
            raise self.end(f"sent no answer to {name!r} ({error}) and was ended") from None

    def _died(self) -> ProtocolError:
        """The way the worker ended by itself; or the reason for which it was ended meanwhile, by another thread."""
        if self._over is not None:
            return ProtocolError(self._over)
        code = self._child.exit_code()
        meaning = f" ({SIGNALS[-code]})" if -code in SIGNALS else ""
        how = f"by signal {-code}{meaning}" if code < 0 else f"with exit code {code}"
        return self.end(f"ended {how}{self._child.last_words()}")

    def _check_process(self) -> None:
        if os.getpid() != self._owner:
            raise CapabilityError(
                f"backend {self.backend!r} lives in worker processes, which a forked child cannot use; start the child "
                "by spawn, and make the backend there"
            )


class Handle:
    """An object in a worker, which lets go of it some time after this is gone.

    `home` is one that it needs there. `payload` are the library's bytes of it, where another worker may need them.
    """

    __slots__ = ("__weakref__", "home", "number", "payload", "worker")

    def __init__(self, worker: Worker, number: int, home: Handle | None = None, payload: bytes = b"") -> None:
        self.worker = worker
        self.number = number
        self.home = home
        self.payload = payload

    def __del__(self) -> None:
        self.worker.release(self.number)


def places(*targets: str) -> dict[str, list[str]]:
    """Where the top packages of some modules are: what a worker is told, to have the files that this process has."""
    found = {}
    for name in {target.partition(":")[0].partition(".")[0] for target in targets}:
        try:
            spec = find_spec(name)
        except (ImportError, ValueError):
            spec = None
        origins = [] if spec is None else spec.submodule_search_locations or [spec.origin or ""]
        if name == "__main__" or not any(Path(place).exists() for place in origins):
            raise PluginError(f"module {name!r} of a hosted backend is no file; give 'package.module:Class' of one")
        found[name] = [str(Path(place).absolute()) for place in origins]
    return found


def _environment() -> dict[str, str]:
    """PYTHONPATH may lead to what was compiled for another Python; more than one thread makes libraries slower."""
    left_out = ("PYTHONPATH", "VIRTUAL_ENV", "HEFW_HOME", "XDG_DATA_HOME", "HOME")
    kept = {name: value for name, value in environment().items() if name not in left_out}
    return kept | {"OMP_NUM_THREADS": "1"}


def _end(child: ChildProcess, lifeline: socket.socket, owner: int) -> None:
    if os.getpid() == owner:
        lifeline.close()
        child.end()
        child.close()


#: Workers of this process, for a forked child to let go of.
_running: weakref.WeakSet[Worker] = weakref.WeakSet()


def _let_go() -> None:
    for worker in list(_running):
        worker.let_go()


os.register_at_fork(after_in_child=_let_go)
