"""Routers and workers as real processes, without Ray: what dies is started again here, what hangs is killed here.

Answers, loads and books are read from outside, so that nothing of what is tested runs in the test's own process.
"""

import contextlib
import itertools
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
import psutil
from baton.v1 import common_pb2, control_pb2, generate_pb2, generate_pb2_grpc

from core.events import WorkerLoad
from core.processes import ProcessId, started_after_boot_s
from core.request import Role
from deploy.all_routers import AllRouters
from deploy.bench.chaos.victims import MIN_ROUTERS, order_role, statuses
from deploy.bench.chaos.wind import Processes
from deploy.cluster_processes import processes_of
from deploy.fence_client import FenceClient
from deploy.free_port import free_port
from deploy.processes import kill_processes
from deploy.supervisor import Supervisor
from router import wire
from router.state.address import MEMORY
from tests.chaos.child import Child
from tests.chaos.request import REQUEST_TIMEOUT_S, Request

MODEL = "tiny"
LOOPBACK = "127.0.0.1"
SETTLE_TIMEOUT_S = 60.0
POLL_S = 0.01
RESTART_S = 0.2  # as Ray takes about a second, mostly for the new process
NO_ANSWER = (AssertionError, OSError, ValueError, queue.Empty)
"""What asking a process raises that has ended, or whose pipes are closed because another is started in its place."""

NAMESPACE_PORT = 18001  # of the router, and the next ones: where it has a network namespace of its own

ROUTER = {
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
        router_place: where the routers run.
        num_routers: that share their HTTP and gRPC port, if there are several.
        state: where they agree; of several a Redis database.
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
        num_routers: int = 1,
        state: str = MEMORY,
    ) -> None:
        self._folder = folder
        self._model_dir = model_dir
        self._block_bytes = block_bytes
        self._slots = {slot.name: slot for slot in slots}
        self._router_place = router_place or Place()
        self._env = {"XDG_CACHE_HOME": str(folder), "UCX_TLS": ucx_tls, "OMP_NUM_THREADS": "1"}
        self._state = state
        http_port, grpc_port, *cluster_ports = free_ports(self._router_place, 2 + num_routers)
        self._ports = {"port": http_port, "grpc_port": grpc_port}
        self._cluster_ports = {f"router-{number}": port for number, port in enumerate(cluster_ports)}
        self._routers: dict[str, Child] = {}
        self._workers: dict[str, Child] = {}
        self._closing = threading.Event()
        self._salts = itertools.count()
        self.num_restarts = 0

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.callback(self._close, self._routers)
            for name in self._cluster_ports:
                self._start_router(name)
            for router in self._routers.values():
                router.started()
            stack.callback(self._close, self._workers)
            for name in self._slots:
                self._start_worker(name)
            for worker in self._workers.values():
                worker.started()
            keeper = threading.Thread(target=self._keep, name="keeper", daemon=True)
            keeper.start()
            stack.callback(keeper.join)
            stack.callback(self._closing.set)
            self._channel = stack.enter_context(grpc.insecure_channel(self.grpc_address))
            self.stub = generate_pb2_grpc.GenerateServiceStub(self._channel)
            self.settle()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        """Of the HTTP API."""
        return f"http://{self._router_place.host}:{self._ports['port']}"

    @property
    def grpc_address(self) -> str:
        """Of the gRPC services."""
        return f"{self._router_place.host}:{self._ports['grpc_port']}"

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
            cache_salt=self.new_salt(),
        )
        return Request(self.stub, message)

    def new_salt(self) -> str:
        """Of a request that is to find no KV of an earlier one."""
        return str(next(self._salts))

    # --- what workers say

    def statuses(self) -> dict[str, control_pb2.WorkerStatus]:
        """Of attached workers, by name."""
        return {status.hello.endpoint.worker.name: status for status in statuses(self.grpc_address)}

    def load(self, name: str) -> WorkerLoad:
        """What a worker that runs says between this step and the next; routers hear less often of a long prompt."""
        return WorkerLoad(**self._workers[name].ask()["load"])

    def incarnation(self, name: str) -> int:
        """Of an attached worker; 0 while it is not."""
        status = self.statuses().get(name)
        return status.hello.endpoint.worker.incarnation if status is not None else 0

    def role(self, name: str) -> Role | None:
        """Of an attached worker; None while it is not."""
        status = self.statuses().get(name)
        return wire.ROLE_FROM_PROTO[status.hello.role_state.role] if status is not None else None

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
        except NO_ANSWER:
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

    def kill_router(self, name: str) -> Callable[[], bool]:
        """The same of a router. What is returned says whether another serves in its place."""
        dead = self._routers[name]
        dead.send(signal.SIGKILL)
        return lambda: self._routers[name] is not dead and bool(self._routers[name].started())

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
        fences = [FenceClient(self._cluster_address(name)) for name in self._cluster_ports]
        return Supervisor(
            AllRouters(lambda: fences), lambda ranks: kill_processes([rank.process for rank in ranks]), hang_timeout_s
        ).running()

    def workers(self) -> Processes:
        """Workers that run now; see `deploy.bench.chaos.wind.Victims`."""
        return running(self._workers)

    def routers(self) -> Processes:
        """Routers that run now, if there are several; see `workers`."""
        alive = running(self._routers)
        return alive if len(alive) >= MIN_ROUTERS else {}

    def is_watched(self, worker: str) -> bool:
        """Whether a router has met the process of a worker that runs now."""
        status = self.statuses().get(worker)
        met = [] if status is None else [rank.pid for rank in processes_of(status)]
        return met == [self._workers[worker].process.pid]

    def flip(self, worker: str, role: Role) -> bool:
        """Orders another role."""
        return order_role(self.grpc_address, worker, role)

    # --- inside

    def _cluster_address(self, router: str) -> str:
        return f"{self._router_place.host}:{self._cluster_ports[router]}"

    def _start_router(self, name: str) -> None:
        place = self._router_place
        settings: dict[str, Any] = {**ROUTER, **self._ports, "host": place.host, "cluster_host": place.host}
        settings |= {"cluster_port": self._cluster_ports[name], "model_dir": str(self._model_dir)}
        settings |= {"state": self._state}
        if len(self._cluster_ports) > 1:
            settings["reuse_port"] = True
        log = self._folder / f"{name}.log"
        self._routers[name] = Child("tests.chaos.router_main", settings, log, env=self._env, prefix=place.prefix)

    def _start_worker(self, name: str) -> None:
        slot = self._slots[name]
        settings: dict[str, Any] = {
            **WORKER,
            "name": name,
            "role": slot.role.value,
            "model_dir": str(self._model_dir),
            "host": slot.place.host,
            "routers": [self._cluster_address(router) for router in self._cluster_ports],
            "kv_cache_gb": slot.num_blocks * self._block_bytes / 2**30,
        }
        log = self._folder / f"{name}.log"
        self._workers[name] = Child("tests.chaos.worker_main", settings, log, env=self._env, prefix=slot.place.prefix)

    def _keep(self) -> None:
        """Starts again what has died."""
        while not self._closing.wait(RESTART_S):
            for children, start in ((self._workers, self._start_worker), (self._routers, self._start_router)):
                for name, child in list(children.items()):
                    if not child.is_alive:
                        start(name)  # first: whoever asks meanwhile finds no closed one
                        child.close()
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

    @staticmethod
    def _close(children: dict[str, Child]) -> None:
        for child in children.values():
            child.close()


def free_ports(place: Place, number: int) -> list[int]:
    """Ports nobody listens on now where the routers are to run; another namespace has all ports free."""
    if place.prefix:
        return [NAMESPACE_PORT + index for index in range(number)]
    return [free_port(place.host) for _ in range(number)]


def running(children: Mapping[str, Child]) -> dict[str, list[ProcessId]]:
    """The processes of those that run now, by name."""
    found: dict[str, list[ProcessId]] = {}
    for name, child in list(children.items()):
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(child.process.pid)
            if child.is_alive:
                found[name] = [ProcessId(process.pid, started_after_boot_s(process))]
    return found
