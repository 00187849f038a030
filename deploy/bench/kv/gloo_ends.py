"""A contestant: torch.distributed's Gloo backend, point to point, one `send` and one `recv` per block."""

from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import Store, TCPStore  # type: ignore[attr-defined] # missing in its stubs

from deploy.bench.kv.ends import HOST, WAIT_S
from deploy.bench.kv.exchange import Exchange, Pool, pieces
from deploy.bench.remote import IsCalled

TIMEOUT = timedelta(seconds=WAIT_S)
BLOCK_TAG, DONE_TAG = 0, 1

Backend = Any  # torch's stubs leave out the operations of single backends


class GlooSource:
    """Implements `Source`; rank 0."""

    address = None

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._done = torch.zeros(1, dtype=torch.uint8)

    def open(self, target: int) -> None:
        """Meets the target at its store."""
        self._backend = _join(TCPStore(HOST, target, is_master=False, timeout=TIMEOUT), rank=0)

    def give(self, exchange: Exchange) -> None:
        """The sends of a piece are under way together."""
        for ids in pieces(exchange.source_ids, self._pool.block_bytes):
            works = [self._backend.send([self._pool.blocks[block_id]], 1, BLOCK_TAG) for block_id in ids]
            for work in works:
                work.wait()
        self._backend.recv([self._done], 1, DONE_TAG).wait()

    def close(self) -> None:
        """Leaves the group."""
        del self._backend


class GlooTarget:
    """Implements `Target`; rank 1, and host of the store where both meet."""

    def __init__(self, pool: Pool, _source: None, _is_called: IsCalled) -> None:
        self._pool = pool
        self._store = TCPStore(HOST, 0, is_master=True, wait_for_workers=False, timeout=TIMEOUT)
        self.address = self._store.port
        self._done = torch.zeros(1, dtype=torch.uint8)

    def open(self) -> None:
        """Meets the source."""
        self._backend = _join(self._store, rank=1)

    def take(self, exchange: Exchange) -> None:
        """The receives of a piece are under way together."""
        for ids in pieces(exchange.target_ids, self._pool.block_bytes):
            works = [self._backend.recv([self._pool.blocks[block_id]], 0, BLOCK_TAG) for block_id in ids]
            for work in works:
                work.wait()
        self._backend.send([self._done], 0, DONE_TAG).wait()

    def close(self) -> None:
        """Leaves the group."""
        del self._backend, self._store


def _join(store: Store, rank: int) -> Backend:
    make: Any = dist.ProcessGroupGloo
    options = make._Options()  # noqa: SLF001 - torch's own way to choose the device
    options._timeout = TIMEOUT  # noqa: SLF001 - likewise
    options._devices = [make.create_device(hostname=HOST)]  # noqa: SLF001 - likewise
    return make(store, rank, 2, options)
