"""Processes that do nothing, for tests that find, stop and kill them."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator

LISTEN = "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); "


@contextlib.contextmanager
def started(code: str = "") -> Iterator[subprocess.Popen[str]]:
    """One that runs some code first, `LISTEN` for one with a port that it prints."""
    command = [sys.executable, "-c", f"import time; {code}time.sleep(60)"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
