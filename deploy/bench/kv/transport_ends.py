"""Our own transports as contestants, driven as the block mover drives them: a few pieces under way, polled."""

import time
from collections import deque

import torch

from core.errors import InternalError
from core.ids import WorkerId
from deploy.bench.kv.ends import HOST
from deploy.bench.kv.exchange import Exchange, Pool, pieces
from deploy.bench.remote import IsCalled
from kvtransfer.memory import RankMemory
from kvtransfer.move import Direction
from kvtransfer.mover import INBOUND_POLL_S, POLL_S
from kvtransfer.open_move import MAX_PIECES
from kvtransfer.runs import Region, RunTable
from kvtransfer.transport import Transfer, TransferState, Transport
from kvtransfer.transports import TransportSettings, open_transports

STAGING_BYTES = 4096  # not used: blocks have one shape


class TransportSource:
    """Implements `Source`.

    Args:
        name: of the transport.
        path: what is to carry the bytes.
        pool: registered until `close`.
    """

    def __init__(self, name: str, path: str, pool: Pool) -> None:
        self._pool = pool
        self._path = path
        self._transport = _open(name, source_id(pool), pool)
        self.address = self._transport.metadata()

    def open(self, target: bytes) -> None:
        """Connects and prepares the blocks' descriptors.

        Raises:
            InternalError: something else than the path to be measured carries the bytes.
        """
        self._target = target_id(self._pool)
        path = self._transport.add_peer(self._target, target, run_table(self._pool), run_table(self._pool))
        if path != self._path:
            raise InternalError(
                f"{path} carries the bytes instead of {self._path}; may this user trace its processes?"
            )

    def give(self, exchange: Exchange) -> None:
        """Writes all blocks."""
        write_all(self._transport, self._target, self._pool.block_bytes, exchange)

    def close(self) -> None:
        """Closes the transport."""
        self._transport.close()


class TransportTarget:
    """Implements `Target`: lets the source's writes advance.

    Args:
        name: of the transport.
        pool: registered until `close`.
        source: the source's metadata.
        is_called: tells when to stop.
    """

    def __init__(self, name: str, pool: Pool, source: bytes, is_called: IsCalled) -> None:
        self._is_called = is_called
        self._transport = _open(name, target_id(pool), pool)
        self._transport.expect_peer(source_id(pool), source)
        self.address = self._transport.metadata()

    def open(self) -> None:
        """Helps the source to connect, until it has."""
        self._progress()

    def take(self, _exchange: Exchange) -> None:
        """Until the source is done."""
        self._progress()

    def close(self) -> None:
        """Closes the transport."""
        self._transport.close()

    def _progress(self) -> None:
        while not self._is_called(INBOUND_POLL_S):
            self._transport.progress()


class TransportCopier:
    """Implements `Copier` by the in-process transport."""

    def __init__(self, source: Pool, target: Pool) -> None:
        self._pool = source
        self._target = target_id(target)
        self._transports = [_open("local", source_id(source), source), _open("local", self._target, target)]
        ours, theirs = self._transports
        ours.add_peer(self._target, theirs.metadata(), run_table(source), run_table(target))

    def copy(self, exchange: Exchange) -> None:
        """See `Copier.copy`."""
        write_all(self._transports[0], self._target, self._pool.block_bytes, exchange)

    def close(self) -> None:
        """Closes both ends."""
        for transport in self._transports:
            transport.close()


def write_all(transport: Transport, peer: WorkerId, block_bytes: int, exchange: Exchange) -> None:
    """Writes all blocks of an exchange, piece by piece; returns when the last is there."""
    under_way: deque[Transfer] = deque()
    sides = (pieces(ids, block_bytes) for ids in (exchange.source_ids, exchange.target_ids))
    for local, remote in zip(*sides, strict=True):
        if len(under_way) == MAX_PIECES:
            _wait(under_way.popleft())
        under_way.append(transport.post(peer, Direction.WRITE, local, remote))
    while under_way:
        _wait(under_way.popleft())


def run_table(pool: Pool) -> RunTable:
    """One run per block."""
    return RunTable(
        region=Region.POOL,
        num_blocks=len(pool.blocks),
        block_stride_bytes=pool.block_bytes,
        num_rows=1,
        row_stride_bytes=pool.block_bytes,
        first_byte=0,
        run_bytes=pool.block_bytes,
    )


def rank_memory(pool: Pool) -> RankMemory:
    """As a rank registers it."""
    return RankMemory(pool.blocks, torch.zeros(STAGING_BYTES, dtype=torch.uint8))


def source_id(pool: Pool) -> WorkerId:
    """Of the source; another process to its peers for each size of blocks."""
    return WorkerId("source", pool.block_bytes)


def target_id(pool: Pool) -> WorkerId:
    """Likewise of the target."""
    return WorkerId("target", pool.block_bytes)


def _open(name: str, rank: WorkerId, pool: Pool) -> Transport:
    return open_transports((name,), rank, rank_memory(pool), TransportSettings(host=HOST))[name]


def _wait(transfer: Transfer) -> None:
    while transfer.poll() is TransferState.IN_FLIGHT:
        time.sleep(POLL_S)
