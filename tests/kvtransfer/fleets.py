"""Transports with random bytes, several in one process; in this one, or in another that is told what to do."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

import numpy as np
import torch
from torch import Tensor

from core.errors import BatonError, HandoffError
from core.ids import WorkerId
from kvtransfer.local_transport import LocalTransport
from kvtransfer.memory import RankMemory
from kvtransfer.move import Direction
from kvtransfer.runs import Region, RunTable
from kvtransfer.transport import Transfer, TransferState, Transport
from kvtransfer.transports import TransportSettings, open_transports

ANSWER_TIMEOUT_S = 30.0  # a process of its own imports torch and NIXL first
PROGRESS_S = 0.0005
NUM_BLOCKS, BLOCK_BYTES, STAGING_BYTES = 16, 512, 4096


def random_memory(num_blocks: int, block_bytes: int) -> RankMemory:
    pool = torch.randint(0, 256, (num_blocks, block_bytes), dtype=torch.uint8)
    return RankMemory(pool, torch.randint(0, 256, (STAGING_BYTES,), dtype=torch.uint8))


def whole_blocks(num_blocks: int = NUM_BLOCKS, block_bytes: int = BLOCK_BYTES) -> RunTable:
    return RunTable(Region.POOL, num_blocks, block_bytes, 1, 0, 0, block_bytes)


class Fleet:
    """Transports of one kind in this process. While one of them is busy, the others make progress.

    All that goes in and out of its methods can be pickled, so that a fleet can also live in another process.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._memories: dict[WorkerId, RankMemory] = {}
        self._transports: dict[WorkerId, Transport] = {}
        self._neighbours: dict[WorkerId, RankMemory] = {}
        self._open: list[Transfer] = []
        self._threads = ThreadPoolExecutor(2)

    def start(self, worker: WorkerId, num_blocks: int = NUM_BLOCKS, block_bytes: int = BLOCK_BYTES) -> None:
        memory = self._memories[worker] = random_memory(num_blocks, block_bytes)
        if self.kind == "local":
            self._transports[worker] = LocalTransport(worker, memory, self._neighbours)
        else:
            self._transports[worker] = open_transports((self.kind,), worker, memory, TransportSettings())[self.kind]

    def metadata(self, worker: WorkerId) -> bytes:
        return self._transports[worker].metadata()

    def expect(self, worker: WorkerId, peer: WorkerId, metadata: bytes) -> None:
        self._transports[worker].expect_peer(peer, metadata)

    def add(
        self,
        worker: WorkerId,
        peer: WorkerId,
        metadata: bytes,
        local: RunTable | None = None,
        remote: RunTable | None = None,
    ) -> str:
        """`add_peer`, of whole blocks when nothing is said."""
        transport, whole = self._transports[worker], whole_blocks(*self._memories[worker].pool.shape)
        return self._meanwhile(lambda: transport.add_peer(peer, metadata, local or whole, remote or whole), worker)

    def connect(self, source: WorkerId, target: WorkerId, *tables: RunTable) -> str:
        """The handshake of two members."""
        self.expect(target, source, self.metadata(source))
        return self.add(source, target, self.metadata(target), *tables)

    def connect_both_ways(self, one: WorkerId, other: WorkerId) -> None:
        """Two handshakes at the same time."""
        whole = whole_blocks(*self._memories[one].pool.shape)
        adding = []
        for source, target in ((one, other), (other, one)):
            self.expect(target, source, self.metadata(source))
            metadata, transport = self.metadata(target), self._transports[source]
            adding.append(self._threads.submit(transport.add_peer, target, metadata, whole, whole))
        for added in adding:
            added.result(ANSWER_TIMEOUT_S)

    def post(
        self, source: WorkerId, target: WorkerId, direction: Direction, local: Sequence[int], remote: Sequence[int]
    ) -> None:
        """Starts a transfer, which `finish` ends."""
        ids = (np.array(run_ids, dtype=np.int32) for run_ids in (local, remote))
        self._open.append(self._transports[source].post(target, direction, *ids))

    def states(self, num_polls: int) -> set[TransferState]:
        """What the transfer started last says, so often."""
        return {self._open[-1].poll() for _ in range(num_polls)}

    def finish(self) -> None:
        """Polls until all that was started has ended."""
        opened, self._open = self._open, []
        while opened:
            opened = [transfer for transfer in opened if transfer.poll() is TransferState.IN_FLIGHT]
            self.progress()

    def copy(
        self, source: WorkerId, target: WorkerId, direction: Direction, local: Sequence[int], remote: Sequence[int]
    ) -> None:
        self.post(source, target, direction, local, remote)
        self.finish()

    def copy_until_error(self, source: WorkerId, target: WorkerId, *transfer: object) -> None:
        """Copies the same again and again."""
        while True:
            self.copy(source, target, *transfer)

    def pool(self, worker: WorkerId) -> Tensor:
        return self._memories[worker].pool.clone()

    def staging(self, worker: WorkerId) -> Tensor:
        return self._memories[worker].staging.clone()

    def overwrite(self, worker: WorkerId) -> None:
        """Fills the pool with other bytes."""
        self._memories[worker].pool.random_(0, 256)

    def remove(self, worker: WorkerId, peer: WorkerId) -> None:
        self._transports[worker].remove_peer(peer)

    def stop(self, worker: WorkerId) -> None:
        self._transports.pop(worker).close()

    def progress(self) -> None:
        for transport in self._transports.values():
            transport.progress()

    def reset(self) -> None:
        """Stops all members."""
        self._open = []
        for worker in list(self._transports):
            self.stop(worker)

    def close(self) -> None:
        self.reset()
        self._threads.shutdown()

    def _meanwhile(self, call: Callable[[], str], busy: WorkerId) -> str:
        future: Future[str] = self._threads.submit(call)
        while not future.done():
            for worker, transport in self._transports.items():
                if worker != busy:
                    transport.progress()
        return future.result()


class FleetProcess:
    """A fleet in a process of its own, which makes progress between calls unless told not to."""

    def __init__(self, connection: Connection, process: SpawnProcess) -> None:
        self.process = process
        self._connection = connection

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Calls one of the fleet's methods there; what it raises is raised here."""
        return lambda *arguments: self.wish(name, *arguments)()

    def wish(self, name: str, *arguments: object) -> Callable[[], Any]:
        """Begins a call; returns what waits for its answer."""
        self._connection.send((name, arguments))

        def answer() -> Any:  # noqa: ANN401 - what the method returns
            assert self._connection.poll(ANSWER_TIMEOUT_S), f"no answer to {name}"
            answered = self._connection.recv()
            if isinstance(answered, BatonError):
                raise answered
            return answered

        return answer


@contextmanager
def fleet_process(kind: str, **environment: str) -> Iterator[FleetProcess]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, kind, environment), daemon=True)
    process.start()
    there.close()
    try:
        yield FleetProcess(here, process)
    finally:
        process.kill()
        process.join(ANSWER_TIMEOUT_S)
        process.close()
        here.close()


class _ServedFleet(Fleet):
    is_frozen = False

    def freeze(self) -> None:
        """From now on no progress between calls."""
        self.is_frozen = True

    def resume(self) -> None:
        self.is_frozen = False


def _serve(connection: Connection, kind: str, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    torch.set_num_threads(1)
    fleet = _ServedFleet(kind)
    while True:
        while not connection.poll(None if fleet.is_frozen else PROGRESS_S):
            fleet.progress()
        name, arguments = connection.recv()
        try:
            connection.send(getattr(fleet, name)(*arguments))
        except HandoffError as error:
            connection.send(error)
