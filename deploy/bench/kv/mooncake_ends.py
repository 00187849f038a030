"""A contestant where it is installed: the TCP transport of Mooncake's transfer engine, by synchronous batch writes.

See https://github.com/kvcache-ai/Mooncake; package `mooncake-transfer-engine-non-cuda`, version 0.3.13.
"""

from typing import Any

from deploy.bench.kv.ends import HOST
from deploy.bench.kv.exchange import Exchange, Pool, pieces
from deploy.bench.remote import IsCalled

PIECE_BYTES = 16 * 1024 * 1024  # pieces of 4 MiB were three times slower
MAX_PIECE_BLOCKS = 256  # with some thousands its queues overflow and it fails
POLL_S = 1.0

Address = tuple[str, int]
"""Segment name and address of the pool."""


class MooncakeSource:
    """Implements `Source`."""

    address = None

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._engine = _engine(pool)

    def open(self, target: Address) -> None:
        """Connections are made with the first write."""
        self._segment, self._base = target

    def give(self, exchange: Exchange) -> None:
        """One batch after the other, each of which ends when it is there."""
        block_bytes, base = self._pool.block_bytes, self._pool.memory.data_ptr()
        piece_bytes = min(PIECE_BYTES, MAX_PIECE_BLOCKS * block_bytes)
        sources = pieces(exchange.source_ids, block_bytes, piece_bytes)
        targets = pieces(exchange.target_ids, block_bytes, piece_bytes)
        for source_ids, target_ids in zip(sources, targets, strict=True):
            local = [base + block_bytes * block_id for block_id in source_ids.tolist()]
            remote = [self._base + block_bytes * block_id for block_id in target_ids.tolist()]
            if code := self._engine.batch_transfer_sync_write(
                self._segment, local, remote, [block_bytes] * len(local)
            ):
                raise RuntimeError(f"Mooncake failed with code {code}")

    def close(self) -> None:
        """Gives the registration back."""
        self._engine.unregister_memory(self._pool.memory.data_ptr())


class MooncakeTarget:
    """Implements `Target`; the engine's own threads do its part."""

    def __init__(self, pool: Pool, _source: None, is_called: IsCalled) -> None:
        self._pool = pool
        self._is_called = is_called
        self._engine = _engine(pool)
        self.address: Address = (f"{HOST}:{self._engine.get_rpc_port()}", pool.memory.data_ptr())

    def open(self) -> None:
        """The engine has been listening since it was made."""

    def take(self, _exchange: Exchange) -> None:
        """Waits until the source is done."""
        while not self._is_called(POLL_S):
            pass

    def close(self) -> None:
        """Gives the registration back."""
        self._engine.unregister_memory(self._pool.memory.data_ptr())


def _engine(pool: Pool) -> Any:  # noqa: ANN401 - a native object
    from mooncake.engine import TransferEngine  # noqa: PLC0415 - an optional package

    engine = TransferEngine()
    if code := engine.initialize(HOST, "P2PHANDSHAKE", "tcp", ""):
        raise RuntimeError(f"Mooncake did not start: code {code}")
    if code := engine.register_memory(pool.memory.data_ptr(), pool.memory.numel()):
        raise RuntimeError(f"Mooncake did not register {pool.memory.numel()} bytes: code {code}")
    return engine
