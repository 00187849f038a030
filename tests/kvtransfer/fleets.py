"""Transports with pools of random bytes, in this process or in one of their own."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

from torch import Tensor

from core.errors import BatonError, HandoffError
from core.ids import WorkerId
from engine.kv.layout import KvLayout
from engine.kv.pool import BlockPool
from kvtransfer.local_transport import LocalTransport
from kvtransfer.nixl_transport import NixlTransport
from kvtransfer.transport import BlockWrite, Transport, WriteState

ANSWER_TIMEOUT_S = 30.0  # a process of its own imports torch and NIXL first
PROGRESS_S = 0.0005
BIG_BLOCK_TOKENS = 2048  # blocks of 64 KiB: more than goes out before the receiver reads


def random_pool(num_blocks: int, block_tokens: int = 4) -> BlockPool:
    pool = BlockPool(KvLayout(1, 1, block_tokens, 4, "float32"), num_blocks)
    pool.tensor.normal_()
    return pool


class Fleet:
    """Transports of one kind in this process. While one of them is busy, the others make progress."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.pools: dict[WorkerId, BlockPool] = {}
        self.transports: dict[WorkerId, Transport] = {}
        self._neighbours: dict[WorkerId, BlockPool] = {}
        self._thread = ThreadPoolExecutor(1)

    def start(self, worker: WorkerId, num_blocks: int = 16, block_tokens: int = 4) -> Transport:
        pool = self.pools[worker] = random_pool(num_blocks, block_tokens)
        if self.kind == "local":
            self.transports[worker] = LocalTransport(worker, pool, self._neighbours)
        else:
            self.transports[worker] = NixlTransport(worker, pool)
        return self.transports[worker]

    def connect(self, source: WorkerId, target: WorkerId, metadata: bytes | None = None) -> None:
        metadata = self.transports[target].metadata() if metadata is None else metadata
        self._meanwhile(source, lambda: self.transports[source].add_peer(target, metadata))

    def write(self, source: WorkerId, target: WorkerId, local: Sequence[int], remote: Sequence[int]) -> None:
        self._meanwhile(source, lambda: finish(self.transports[source].post_write(target, local, remote)))

    def stop(self, worker: WorkerId) -> None:
        self.transports.pop(worker).close()

    def close(self) -> None:
        for worker in list(self.transports):
            self.stop(worker)
        self._thread.shutdown()

    def _meanwhile(self, busy: WorkerId, call: Callable[[], None]) -> None:
        future = self._thread.submit(call)
        while not future.done():
            for worker, transport in self.transports.items():
                if worker != busy:
                    transport.progress()
        future.result()


def finish(write: BlockWrite) -> None:
    while write.poll() is WriteState.IN_FLIGHT:
        pass


class PeerProcess:
    """A NIXL transport in a process of its own, which makes progress between calls unless told not to."""

    def __init__(self, worker: WorkerId, connection: Connection, process: SpawnProcess) -> None:
        self.worker = worker
        self.process = process
        self._connection = connection

    def ask(self, name: str, *arguments: object) -> Any:  # noqa: ANN401 - what the method returns
        """Calls one of `_Served`'s methods there; what it raises is raised here."""
        self._connection.send((name, arguments))
        assert self._connection.poll(ANSWER_TIMEOUT_S), f"no answer to {name}"
        answer = self._connection.recv()
        if isinstance(answer, BatonError):
            raise answer
        return answer

    def wish(self, name: str, *arguments: object) -> Callable[[], object]:
        """As `ask`, but returns what waits for the answer."""
        self._connection.send((name, arguments))

        def answer() -> object:
            assert self._connection.poll(ANSWER_TIMEOUT_S), f"no answer to {name}"
            return self._connection.recv()

        return answer


@contextmanager
def peer_process(worker: WorkerId, num_blocks: int, block_tokens: int = 4) -> Iterator[PeerProcess]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, worker, num_blocks, block_tokens), daemon=True)
    process.start()
    try:
        yield PeerProcess(worker, here, process)
    finally:
        process.kill()
        process.join(ANSWER_TIMEOUT_S)
        process.close()
        here.close()
        there.close()


class _Served:
    def __init__(self, worker: WorkerId, num_blocks: int, block_tokens: int) -> None:
        self.pool = random_pool(num_blocks, block_tokens)
        self.transport = NixlTransport(worker, self.pool)
        self.is_progressing = True

    def metadata(self) -> bytes:
        return self.transport.metadata()

    def connect(self, peer: WorkerId, metadata: bytes) -> None:
        self.transport.add_peer(peer, metadata)

    def write(self, peer: WorkerId, local: Sequence[int], remote: Sequence[int]) -> None:
        finish(self.transport.post_write(peer, local, remote))

    def blocks(self) -> Tensor:
        return self.pool.tensor.clone()

    def freeze(self) -> None:
        self.is_progressing = False

    def resume(self) -> None:
        self.is_progressing = True


def _serve(connection: Connection, worker: WorkerId, num_blocks: int, block_tokens: int) -> None:
    served = _Served(worker, num_blocks, block_tokens)
    while True:
        while not connection.poll(PROGRESS_S if served.is_progressing else None):
            served.transport.progress()
        name, arguments = connection.recv()
        try:
            connection.send(getattr(served, name)(*arguments))
        except HandoffError as error:
            connection.send(error)
