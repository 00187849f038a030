"""A router and workers as real processes, without Ray: what dies is started again here, what hangs is killed here.

Answers, loads and books are read from outside, so that nothing of what is tested runs in the test's own process.
"""

import contextlib
import itertools
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
from baton.v1 import common_pb2, control_pb2, generate_pb2, generate_pb2_grpc

from core.events import WorkerLoad
from core.request import Role
from deploy.all_routers import AllRouters
from deploy.fence_client import FenceClient
from deploy.processes import kill_processes
from deploy.status_client import get_status
from deploy.supervisor import Supervisor
from tests.chaos.child import Child
from tests.chaos.request import REQUEST_TIMEOUT_S, Request

MODEL = "tiny"
LOOPBACK = "127.0.0.1"
SETTLE_TIMEOUT_S = 60.0
POLL_S = 0.01
RESTART_S = 0.2  # as Ray takes about a second, mostly for the new process
NAMESPACE_PORT = 18001  # of the router, and the next one: where it has a network namespace of its own

ROUTER = {
    "host": LOOPBACK,
    "port": 0,
    "served_model_name": MODEL,
    "max_model_len": 1400,
    "request_timeout_s": REQUEST_TIMEOUT_S,
    "placement_timeout_s": REQUEST_TIMEOUT_S,
    "heartbeat_timeout_s": 3.0,
    "auto_roles": False,  # tests wait for handoffs from one worker to the other, which a mixed one has no need of
}
WORKER = {
    "dtype": "float32",
    "max_model_len": 1400,
    "max_num_seqs": 4,
    "max_num_batched_tokens": 32,  # many chunks: a prompt is under way for long enough to be hit
}


@dataclass(frozen=True)
class Place:
    """Where a process runs: `prefix` puts it there, others reach it at `host`."""

    host: str = LOOPBACK
    prefix: tuple[str, ...] = ()


@dataclass(frozen=True)
class Slot:
    """A worker that is always to run."""

    name: str
    role: Role
    num_blocks: int
    place: Place = field(default_factory=Place)


class ChaosCluster:
    """Everything runs while the context lasts.

    Args:
        folder: for logs and caches.
        model_dir: what all serve.
        block_bytes: of one KV block of that model.
        slots: the workers.
        ucx_tls: how NIXL may move bytes.
        router_place: where the router runs.
    """

    def __init__(
        self,
        folder: Path,
        model_dir: Path,
        block_bytes: int,
        slots: Sequence[Slot],
        *,
        ucx_tls: str,
        router_place: Place | None = None,
    ) -> None:
        self._folder = folder
        self._model_dir = model_dir
        self._block_bytes = block_bytes
        self._slots = {slot.name: slot for slot in slots}
        self._router_place = router_place or Place()
        self._env = {"XDG_CACHE_HOME": str(folder), "UCX_TLS": ucx_tls, "OMP_NUM_THREADS": "1"}
        self._workers: dict[str, Child] = {}
        self._closing = threading.Event()
        self._salts = itertools.count()
        self.num_restarts = 0

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            router = self._start_router()
            stack.callback(router.close)
            self.grpc_address = f"{self._router_place.host}:{router.started()['grpc_port']}"
            stack.callback(self._close_workers)
            for name in self._slots:
                self._start_worker(name)
            for worker in self._workers.values():
                worker.started()
            keeper = threading.Thread(target=self._keep, name="keeper", daemon=True)
            keeper.start()
            stack.callback(keeper.join)
            stack.callback(self._closing.set)
            self._channel = stack.enter_context(grpc.insecure_channel(self.grpc_address))
            self._stub = generate_pb2_grpc.GenerateServiceStub(self._channel)
            self.settle()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    # --- clients

    def ask(
        self, prompt: Sequence[int], max_tokens: int, *, ignore_eos: bool = False, timeout_s: float | None = None
    ) -> Request:
        """Asks for a greedy answer; no KV of an earlier request is found."""
        message = generate_pb2.GenerateRequest(
            model=MODEL,
            tokens=generate_pb2.TokenIds(ids=prompt),
            max_tokens=max_tokens,
            sampling=generate_pb2.SamplingOptions(temperature=0),
            ignore_eos=ignore_eos,
            timeout_s=timeout_s,
            cache_salt=str(next(self._salts)),
        )
        return Request(self._stub, message)

    # --- what workers say

    def statuses(self) -> dict[str, control_pb2.WorkerStatus]:
        """Of attached workers, by name."""
        return {status.hello.endpoint.worker.name: status for status in get_status(self.grpc_address).workers}

    def load(self, name: str) -> WorkerLoad:
        """What a worker that runs says between this step and the next; routers hear less often of a long prompt."""
        return WorkerLoad(**self._workers[name].ask()["load"])

    def incarnation(self, name: str) -> int:
        """Of an attached worker; 0 while it is not."""
        status = self.statuses().get(name)
        return status.hello.endpoint.worker.incarnation if status is not None else 0

    def wait_until(self, condition: Callable[[], bool], what: str, timeout_s: float = SETTLE_TIMEOUT_S) -> None:
        """Looks again and again, a bounded time."""
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline_s, f"never {what}: {self._describe()}"
            time.sleep(POLL_S)

    def settle(self) -> None:
        """Waits until all workers serve, and nobody uses, may write or reads a block: so say they and the router."""
        self.wait_until(lambda: len(self.statuses()) == len(self._slots), "attached")
        for name in self._slots:
            self.wait_until(lambda name=name: self._is_free(name), f"free: {name}")
        self.wait_until(lambda: len(self.statuses()) == len(self._slots), "attached")
        self.wait_until(lambda: self.num_held_blocks() == 0, "free, says the router")

    def _is_free(self, name: str) -> bool:
        """Looks at a worker's books, which must balance whatever is in them; one killed just now has none yet."""
        try:
            books = self._workers[name].ask()
        except (AssertionError, BrokenPipeError):
            return False
        held = [books["load"][f"blocks_{state}"] for state in ("leased", "quarantined", "running")]
        return books["is_idle"] and not books["load"]["incoming_handoffs"] and not any(held)

    def num_held_blocks(self) -> int:
        """Blocks that somebody holds at the workers that are attached, by what the router heard last."""
        loads = [status.load for status in self.statuses().values()]
        return sum(load.blocks_leased + load.blocks_quarantined + load.blocks_running for load in loads)

    # --- faults

    def kill(self, name: str) -> None:
        """As `kill -9`; it is started again."""
        self._workers[name].send(signal.SIGKILL)

    def hang(self, name: str) -> None:
        """It does nothing any more, until somebody kills it."""
        self._workers[name].send(signal.SIGSTOP)

    @contextlib.contextmanager
    def stopped(self, name: str) -> Iterator[None]:
        """While the context lasts, the process that ran when it began does nothing."""
        worker = self._workers[name]
        worker.send(signal.SIGSTOP)
        try:
            yield
        finally:
            worker.send(signal.SIGCONT)

    def supervised(self, hang_timeout_s: float) -> contextlib.AbstractContextManager[None]:
        """While the context lasts, workers that hang are killed."""
        routers = AllRouters(lambda: [FenceClient(self._cluster_address)])
        return Supervisor(
            routers, lambda ranks: kill_processes([rank.process for rank in ranks]), hang_timeout_s
        ).running()

    # --- inside

    def _start_router(self) -> Child:
        place = self._router_place
        settings = {**ROUTER, "host": place.host, "cluster_host": place.host, "model_dir": str(self._model_dir)}
        settings |= {
            "grpc_port": free_port(place, NAMESPACE_PORT),
            "cluster_port": free_port(place, NAMESPACE_PORT + 1),
        }
        self._cluster_address = f"{place.host}:{settings['cluster_port']}"
        return Child(
            "tests.chaos.router_main", settings, self._folder / "router.log", env=self._env, prefix=place.prefix
        )

    def _start_worker(self, name: str) -> None:
        slot = self._slots[name]
        settings: dict[str, Any] = {
            **WORKER,
            "name": name,
            "role": slot.role.value,
            "model_dir": str(self._model_dir),
            "host": slot.place.host,
            "routers": [self._cluster_address],
            "kv_cache_gb": slot.num_blocks * self._block_bytes / 2**30,
        }
        log = self._folder / f"{name}.log"
        self._workers[name] = Child("tests.chaos.worker_main", settings, log, env=self._env, prefix=slot.place.prefix)

    def _keep(self) -> None:
        """Starts again what has died."""
        while not self._closing.wait(RESTART_S):
            for name, worker in list(self._workers.items()):
                if not worker.is_alive:
                    worker.close()
                    self._start_worker(name)
                    self.num_restarts += 1

    def _describe(self) -> str:
        """What is not as it should be: what workers hold, and the last that each has logged."""
        loads = []
        for name, status in self.statuses().items():
            role = common_pb2.Role.Name(status.hello.role_state.role)
            load = status.load
            held = (
                f"{load.blocks_leased} leased, {load.blocks_quarantined} quarantined, {load.blocks_running} running"
            )
            loads.append(f"{name}: {role}, {held}; silent for {status.silent_s:.1f} s")
        logs = [f"--- {name}\n{worker.log_tail()}" for name, worker in self._workers.items()]
        return "\n".join([*loads, *logs])

    def _close_workers(self) -> None:
        for worker in self._workers.values():
            worker.close()


def free_port(place: Place, namespace_port: int) -> int:
    """A port nobody listens on now where the router is to run; another namespace has all ports free."""
    if place.prefix:
        return namespace_port
    with socket.create_server((place.host, 0)) as listener:
        port: int = listener.getsockname()[1]
    return port
