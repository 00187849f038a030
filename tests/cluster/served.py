"""A cluster as a user starts it: the `baton` command in a process of its own, reached over its ports."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import psutil

from deploy.processes import wait_ended
from tests.processes import listening_ports, of_living

BATON = Path(sys.executable).parent / "baton"
START_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 120.0
RETURN_TIMEOUT_S = 120.0  # for a process to be missed and another one to serve, on a busy machine
WAIT_S = 60.0


def baton(*arguments: str, timeout_s: float = WAIT_S) -> subprocess.CompletedProcess[str]:
    """Runs a `baton` command to its end."""
    return subprocess.run([BATON, *arguments], capture_output=True, text=True, timeout=timeout_s, check=False)


@dataclass
class ServedCluster:
    """A running `baton serve`."""

    process: subprocess.Popen[str]
    output: list[str]
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def grpc_address(self) -> str:
        return f"127.0.0.1:{self.port + 1}"

    def sdk(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=WAIT_S)

    def status(self) -> dict[str, Any]:
        """What `baton status --json` says."""
        finished = baton("status", "--json", "--port", str(self.port))
        assert finished.returncode == 0, finished.stderr
        answer: dict[str, Any] = json.loads(finished.stdout)
        return answer

    def loads(self, role: str) -> list[dict[str, Any]]:
        """The load of every worker in a role."""
        workers = self.status()["workers"]
        return [worker["load"] for worker in workers if worker["hello"]["role_state"]["role"] == role]

    def load_of(self, name: str) -> dict[str, Any]:
        """The load of one worker."""
        (worker,) = [w for w in self.status()["workers"] if w["hello"]["endpoint"]["worker"]["name"] == name]
        load: dict[str, Any] = worker["load"]
        return load

    def total(self, role: str, field: str) -> int:
        return sum(int(load[field]) for load in self.loads(role))

    def wait_until(self, is_true: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
        """Waits until something holds of all workers' loads; fails with the last of them."""
        deadline_s = time.monotonic() + WAIT_S
        while True:
            loads = [worker["load"] for worker in self.status()["workers"]]
            if is_true(loads):
                return loads
            assert time.monotonic() < deadline_s, f"still: {loads}"

    def wait_until_restarted(self, name: str, incarnation: int) -> None:
        """Waits until a later incarnation of a worker than this one is attached."""
        deadline_s = time.monotonic() + RETURN_TIMEOUT_S
        while True:
            ids = [worker["hello"]["endpoint"]["worker"] for worker in self.status()["workers"]]
            if any(each["name"] == name and int(each["incarnation"]) > incarnation for each in ids):
                return
            assert time.monotonic() < deadline_s, f"attached: {ids}"

    def wait_until_all_free(self) -> list[dict[str, Any]]:
        """Waits until no worker uses a block; cached ones are free to be used."""
        return self.wait_until(
            lambda loads: all(load["blocks_free"] + load["blocks_cached"] == load["blocks_total"] for load in loads)
        )

    def worker_process(self, name: str) -> psutil.Process:
        """The process that listens at a worker's address: its rank 0."""
        return self._listeners(self._ports()[name])[0]

    def rank_processes(self, name: str) -> tuple[psutil.Process, psutil.Process]:
        """Both ranks of a worker of two; rank 1 listens where rank 0 has connected to, and is itself no rank 0."""
        ports = self._ports()
        (leader,) = self._listeners(ports[name])
        leaders = self._listeners(*ports.values())
        connected = {c.raddr.port for c in leader.net_connections(kind="tcp") if c.raddr}
        others = {process for process in self._listeners(*connected) if process not in leaders}
        command_lines = of_living(others, psutil.Process.cmdline)
        (follower,) = [process for process, line in command_lines.items() if line[:1] == ["ray::RankActor"]]
        return leader, follower

    def _ports(self) -> dict[str, int]:
        """The port of every worker, by name."""
        endpoints = [worker["hello"]["endpoint"] for worker in self.status()["workers"]]
        return {end["worker"]["name"]: int(end["address"].rpartition(":")[2]) for end in endpoints}

    def _listeners(self, *ports: int) -> list[psutil.Process]:
        """The processes of this cluster that listen at one of the ports, at least one."""
        found = of_living(psutil.Process(self.process.pid).children(recursive=True), listening_ports)
        listeners = [process for process, listening in found.items() if not listening.isdisjoint(ports)]
        assert listeners, f"nobody listens at {ports}"
        return listeners

    def stop_with(self, stop: Callable[[], object]) -> list[psutil.Process]:
        """Stops it; returns processes of it that are left, which must be none."""
        processes = psutil.Process(self.process.pid).children(recursive=True)
        assert len(processes) > 3, "Ray, a router and workers run"
        stop()
        assert self.process.wait(STOP_TIMEOUT_S) == 0
        return wait_ended(processes, STOP_TIMEOUT_S)

    def interrupt(self) -> None:
        """Ctrl-C: the terminal sends it to the whole process group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def close(self) -> None:
        """Ends it by force if a test left it running."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(STOP_TIMEOUT_S)
        if self.process.stdout is not None:
            self.process.stdout.close()


def serve(port: int, *flags: str) -> ServedCluster:
    """Starts `baton serve` and waits until it says that it serves."""
    cluster = start(port, *flags)
    try:
        read_until(cluster.process, "Ctrl-C stops it", cluster.output)
    except BaseException:
        cluster.close()
        raise
    return cluster


def start(port: int, *flags: str) -> ServedCluster:
    """Starts `baton serve`, in a process group of its own as a terminal would."""
    process = subprocess.Popen(
        [BATON, "serve", "--port", str(port), *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    return ServedCluster(process, [], port)


def read_until(process: subprocess.Popen[str], word: str, lines: list[str]) -> None:
    """Collects a process's lines up to the one that holds a word; a process that takes too long is killed."""
    assert process.stdout is not None
    watchdog = threading.Timer(START_TIMEOUT_S, process.kill)
    watchdog.start()
    try:
        while not (lines and word in lines[-1]):
            line = process.stdout.readline()
            assert line, f"it ended: {''.join(lines)}"
            lines.append(line)
    finally:
        watchdog.cancel()
