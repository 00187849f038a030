"""Every kind of route between ranks whose bytes NIXL moves."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from core.ids import WorkerId
from kvtransfer.geometry import WorkerGeometry
from kvtransfer.group_mover import PeerLink
from kvtransfer.memory import RankMemory
from kvtransfer.move import Direction, Move, MoveOutcome
from kvtransfer.nixl_transport import NixlTransport
from kvtransfer.transport import Transport
from tests.kvtransfer.groups import Division, Group, bits, geometry

TIMEOUT_S = 20.0
ROUTES = {
    "whole blocks": (Division(), Division()),
    "head ranges": (Division(1), Division(2)),
    "head ranges the other way": (Division(2), Division(1)),
    "staging": (Division(block_tokens=16), Division(block_tokens=64)),
    "staging the other way": (Division(block_tokens=64), Division(block_tokens=16)),
    "staging and head ranges": (Division(2, block_tokens=16), Division(1, block_tokens=64)),
}
EQUAL_BLOCKS = [name for name in ROUTES if "staging" not in name]


class Pair:
    """Two workers in this process; while one is busy, the other makes progress."""

    def __init__(self, kind: str) -> None:
        self.p, self.d = (
            Group(WorkerId(f"{kind} {name}", 1), geometry(division), nixl_transports)
            for name, division in zip("pd", ROUTES[kind], strict=True)
        )

    def move(self, here: Group, there: Group, move: Move) -> MoveOutcome:
        outcomes: list[MoveOutcome] = []
        link = PeerLink("nixl", there.mover.offers()["nixl"], there.geometry)
        self._meanwhile(there, lambda: here.mover.add_peer(there.worker, link))

        def carry_out() -> None:
            here.mover.move(move, outcomes.append)
            while not outcomes:
                here.drive()

        self._meanwhile(there, carry_out)
        return outcomes[0]

    def close(self) -> None:
        for group in (self.p, self.d):
            group.mover.close()

    def _meanwhile(self, idle: Group, call: Callable[[], object]) -> None:
        with ThreadPoolExecutor(1) as thread:
            busy = thread.submit(call)
            while not busy.done():
                for carrier in idle.carriers:
                    carrier.progress()
            busy.result()


def nixl_transports(rank: WorkerId, memory: RankMemory) -> dict[str, Transport]:
    return {"nixl": NixlTransport(rank, memory)}


def ids(geometry: WorkerGeometry, num_tokens: int) -> list[int]:
    return list(range(num_tokens // geometry.layout.block_tokens))[::-1]


def expect_equal(pair: Pair, num_tokens: int) -> None:
    p_ids, d_ids = ids(pair.p.geometry, num_tokens), ids(pair.d.geometry, num_tokens)
    for index in range(num_tokens):
        for head in range(pair.p.geometry.total_kv_heads):
            expected, got = pair.p.token(p_ids, index, head), pair.d.token(d_ids, index, head)
            assert torch.equal(bits(got), bits(expected))


@pytest.mark.parametrize("kind", ROUTES)
def test_write_over_nixl_gives_the_target_every_token(kind: str) -> None:
    pair = Pair(kind)
    move = Move(pair.d.worker, Direction.WRITE, ids(pair.p.geometry, 128), ids(pair.d.geometry, 128), digest_every=1)
    outcome = pair.move(pair.p, pair.d, move)
    assert outcome.error is None
    expect_equal(pair, 128)
    assert pair.d.mover.verify(outcome.digests).result(TIMEOUT_S)
    pair.close()


@pytest.mark.parametrize("kind", EQUAL_BLOCKS)
def test_read_over_nixl_gives_the_target_every_token(kind: str) -> None:
    pair = Pair(kind)
    move = Move(pair.p.worker, Direction.READ, ids(pair.d.geometry, 128), ids(pair.p.geometry, 128))
    assert pair.move(pair.d, pair.p, move).error is None
    expect_equal(pair, 128)
    pair.close()
