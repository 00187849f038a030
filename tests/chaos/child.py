"""A process of the test's own that speaks JSON lines, and that the test may stop, kill and replace."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

START_TIMEOUT_S = 120.0
ANSWER_TIMEOUT_S = 40.0
STOP_TIMEOUT_S = 30.0
LOG_TAIL = 2000  # characters


class Child:
    """Starts on construction; `close` ends it in whatever state it is.

    Args:
        module: run with `python -m`; gets the settings as its one argument, and says a line when it has started.
        settings: as JSON.
        log: file for its stderr, appended to.
        env: added to this process's environment.
        prefix: of the command, such as `ip netns exec NAME`, which must end by becoming the command.
    """

    def __init__(
        self,
        module: str,
        settings: Mapping[str, Any],
        log: Path,
        *,
        env: Mapping[str, str],
        prefix: Sequence[str] = (),
    ) -> None:
        # Workers that other tests run in this process are on loopback, and have bound UCX to it.
        inherited = {name: value for name, value in os.environ.items() if name != "UCX_NET_DEVICES"}
        self._log = log
        self._first: Future[str] = Future()
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        with log.open("a", encoding="utf-8") as stderr:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, "-m", module, json.dumps(settings)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env={**inherited, **env},
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def started(self) -> dict[str, Any]:
        """What it said when it had started; waits for that."""
        return self._parse(self._first.result(START_TIMEOUT_S))

    def ask(self) -> dict[str, Any]:
        """Sends a line, and waits for the one that answers it; after it has started."""
        self.started()
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self._parse(self._lines.get(timeout=ANSWER_TIMEOUT_S))

    def send(self, number: signal.Signals) -> None:
        """Sends a signal, if it runs still."""
        if self.is_alive:
            self.process.send_signal(number)

    def log_tail(self) -> str:
        return self._log.read_text(encoding="utf-8")[-LOG_TAIL:]

    def close(self) -> None:
        """Lets it end, or kills it."""
        assert self.process.stdin is not None
        self.send(signal.SIGCONT)
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _parse(self, line: str) -> dict[str, Any]:
        assert line, f"it ended: {self.log_tail()}"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _read(self) -> None:
        assert self.process.stdout is not None
        self._first.set_result(self.process.stdout.readline())
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put("")
