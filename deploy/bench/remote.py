"""An object in a process of its own, pinned to one core: calls of its methods go over a pipe. For measuring only."""

import multiprocessing
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from core.errors import InternalError

CALL_TIMEOUT_S = 120.0  # loading a large model is what takes longest
STOP_TIMEOUT_S = 10.0

# The processes are forked from one that has imported what they all need, or each would take two seconds for it.
_CONTEXT = multiprocessing.get_context("forkserver")
_WITH_TORCH = ("torch", "deploy.cli")  # the latter, because a new process imports the program that started it

IsCalled = Callable[[float], bool]
"""Whether the next call has come; waits for it up to so many seconds."""


class Closable(Protocol):
    """What a process can hold."""

    def close(self) -> None:
        """The last call."""
        ...


Make = Callable[[IsCalled], Closable]
"""Makes the object; told how to see that it is to stop what it is doing."""


class Remote:
    """Runs from construction until `close`. An object that cannot be made fails the first call.

    Args:
        make: makes the object. Can be pickled, as all arguments and results of calls.
        core: to pin the process to; torch computes with one thread.
        environment: variables for it, over those of this process.
        preloaded: modules that it has imported before it is made, where it is the first of this process.
    """

    def __init__(
        self, make: Make, core: int, environment: Mapping[str, str], *, preloaded: Sequence[str] = _WITH_TORCH
    ) -> None:
        _CONTEXT.set_forkserver_preload(list(preloaded))
        descriptor, log = tempfile.mkstemp(prefix="baton-bench-", suffix=".log")
        os.close(descriptor)
        self._log = Path(log)
        self._pipe, theirs = _CONTEXT.Pipe()
        arguments = (theirs, make, core, dict(environment), self._log)
        self._process = _CONTEXT.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process.pid is not None, "it was started on construction"
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def call(self, method: str, *arguments: object) -> Any:  # noqa: ANN401 - whatever the method returns
        """Calls a method and waits for its result.

        Raises:
            InternalError: it raised, its process died, or it took over two minutes; with what it said.
        """
        self.start(method, *arguments)
        return self.result()

    def start(self, method: str, *arguments: object) -> None:
        """Has a method run after those started before; each has a `result`."""
        with suppress(BrokenPipeError):  # `result` says why
            self._pipe.send((method, arguments))

    def result(self) -> Any:  # noqa: ANN401 - whatever the method returns
        """Waits for what was started and not waited for yet, the oldest first.

        Raises:
            InternalError: as `call`.
        """
        try:
            if not self._pipe.poll(CALL_TIMEOUT_S):
                raise self._failure(f"did not answer within {CALL_TIMEOUT_S:g} s")
            is_well, answer = self._pipe.recv()
        except (EOFError, ConnectionResetError) as error:
            raise self._failure("died") from error
        if not is_well:
            raise self._failure(f"failed: {answer}")
        return answer

    def close(self) -> None:
        """Has the object closed, and ends the process."""
        with suppress(BrokenPipeError):  # it died before
            self._pipe.send(None)
        self._process.join(STOP_TIMEOUT_S)
        self._process.kill()
        self._pipe.close()
        self._log.unlink(missing_ok=True)

    def _failure(self, what: str) -> InternalError:
        said = self._log.read_text(encoding="utf-8", errors="replace")
        return InternalError(f"a process of the benchmark {what}; it said: {said[-2000:] or 'nothing'}")


def _serve(pipe: Connection, make: Make, core: int, environment: dict[str, str], log: Path) -> None:
    """The process: answers calls until it is told to end, or its parent is gone."""
    _settle(core, environment, log)
    try:
        served = make(pipe.poll)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told to the parent, which raises it
        traceback.print_exc()
        pipe.send((False, repr(error)))
        return
    with suppress(EOFError, BrokenPipeError):
        while (call := pipe.recv()) is not None:
            pipe.send(_answer(served, *call))
    served.close()


def _settle(core: int, environment: dict[str, str], log: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it, too, and closes
    output = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.update(environment)
    os.sched_setaffinity(0, {core})
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)


def _answer(served: Closable, method: str, arguments: tuple[object, ...]) -> tuple[bool, Any]:
    """Whether a call went well, and what it returned or raised."""
    try:
        return True, getattr(served, method)(*arguments)
    except Exception as error:  # noqa: BLE001 - likewise
        traceback.print_exc()
        return False, repr(error)
