"""Two hosts and a router's host on one switch, each a network namespace of this machine. Needs root and iproute2.

    host P ──┐
    host D ──┼── switch (a bridge) in the router's host
    tests  ──┘

Only its own namespaces and interfaces are touched; the latter go with the former.
"""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from tests.chaos.cluster import Place

COMMAND_TIMEOUT_S = 20.0
NUM_SUBNETS = 250  # several runs on one machine seldom meet


def why_not() -> str | None:
    """Why hosts cannot be made here, or None when they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "network namespaces need iproute2 (apt-get install iproute2)"
    probe = f"baton-probe-{os.getpid()}"
    made = _run("ip", "netns", "add", probe)
    if made.returncode != 0:
        return f"network namespaces cannot be made here: {made.stderr.strip()}"
    bridged = _run("ip", "-n", probe, "link", "add", "switch", "type", "bridge")
    _run("ip", "netns", "delete", probe)
    return f"bridges cannot be made here: {bridged.stderr.strip()}" if bridged.returncode else None


class Hosts:
    """They are there while the context lasts.

    Attributes:
        router, prefill, decode: where processes may run.
    """

    def __init__(self) -> None:
        self._tag = f"{os.getpid() % 100_000}"
        self._subnet = f"10.77.{os.getpid() % NUM_SUBNETS}"
        self.router = self._place("r", 254)
        self.prefill = self._place("p", 1)
        self.decode = self._place("d", 2)

    def __enter__(self) -> Self:
        try:
            self._make()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    @contextlib.contextmanager
    def cut_off(self, letter: str) -> Iterator[None]:
        """While the context lasts, the cable of host `p` or `d` is out: nobody reaches it."""
        self._set_port(letter, "down")
        try:
            yield
        finally:
            self._set_port(letter, "up")

    @contextlib.contextmanager
    def parted(self) -> Iterator[None]:
        """While the context lasts, P and D do not reach each other; the router reaches both."""
        self._isolate("d", "on")
        try:
            yield
        finally:
            self._isolate("d", "off")

    def _place(self, letter: str, number: int) -> Place:
        return Place(f"{self._subnet}.{number}", ("ip", "netns", "exec", self._namespace(letter)))

    def _namespace(self, letter: str) -> str:
        return f"baton-{self._tag}-{letter}"

    def _port(self, letter: str) -> str:
        """The switch's end of a cable."""
        return f"bt{self._tag}{letter}"

    def _make(self) -> None:
        for letter in "rpd":
            ip("netns", "add", self._namespace(letter))
            ip("-n", self._namespace(letter), "link", "set", "lo", "up")
        switch = self._namespace("r")
        ip("-n", switch, "link", "add", "switch", "type", "bridge")
        ip("-n", switch, "addr", "add", f"{self.router.host}/24", "dev", "switch")
        ip("-n", switch, "link", "set", "switch", "up")
        for letter, place in (("p", self.prefill), ("d", self.decode)):
            self._plug_in(letter, place.host, "eth0", ("-n", self._namespace(letter)))
        self._isolate("p", "on")
        self._plug_in("t", f"{self._subnet}.253", f"bt{self._tag}h", ())

    def _plug_in(self, letter: str, address: str, interface: str, where: tuple[str, ...]) -> None:
        """A cable from the switch to a host, or to this machine itself."""
        switch, port = self._namespace("r"), self._port(letter)
        ip("-n", switch, "link", "add", port, "type", "veth", "peer", "name", f"{port}x")
        target = self._namespace(letter) if where else str(os.getpid())
        ip("-n", switch, "link", "set", f"{port}x", "netns", target, "name", interface)
        ip("-n", switch, "link", "set", port, "master", "switch", "up")
        ip(*where, "addr", "add", f"{address}/24", "dev", interface)
        ip(*where, "link", "set", interface, "up")

    def _remove(self) -> None:
        for letter in "pdr":
            _run("ip", "netns", "delete", self._namespace(letter))

    def _set_port(self, letter: str, state: str) -> None:
        ip("-n", self._namespace("r"), "link", "set", self._port(letter), state)

    def _isolate(self, letter: str, state: str) -> None:
        """Ports that are isolated do not reach each other. One that is so alone reaches everybody."""
        port = ("dev", self._port(letter), "type", "bridge_slave")
        ip("-n", self._namespace("r"), "link", "set", *port, "isolated", state)


def ip(*arguments: str) -> None:
    """Runs `ip`; fails with what it says."""
    done = _run("ip", *arguments)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False)
