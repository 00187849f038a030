"""KV that one engine computes and another goes on with, though their blocks are of other sizes."""

from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from core.clock import SystemClock
from core.ids import WorkerId
from engine.engine import Engine
from kvtransfer.carrier import Carrier
from kvtransfer.geometry import WorkerGeometry
from kvtransfer.group_mover import GroupMover, PeerLink
from kvtransfer.local_transport import LocalTransport
from kvtransfer.memory import RankMemory, memory_of
from kvtransfer.move import Direction, Move, MoveOutcome
from kvtransfer.mover import BlockMover
from tests.engine.checkpoints import write_tiny_moe
from tests.engine.driver import Driver

P, D = WorkerId("prefill-0", 7), WorkerId("decode-0", 3)
TIMEOUT_S = 30.0
PROMPT = [(7 * i) % 150 + 3 for i in range(150)]  # two blocks of 64 and a part, nine of 16 and a part


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_moe(tmp_path_factory.mktemp("checkpoint"))


@contextmanager
def mover_of(worker: WorkerId, engine: Engine, neighbours: dict[WorkerId, RankMemory]) -> Iterator[GroupMover]:
    layout = engine.pool.layout
    geometry = WorkerGeometry(layout, layout.kv_heads, 1, 1, engine.pool.num_blocks)
    memory = memory_of(engine.pool)
    transports = {"local": LocalTransport(worker, memory, neighbours)}
    carrier = Carrier(transports, memory, geometry.rank(0), engine.progress, SystemClock())
    mover = GroupMover([BlockMover(carrier, on_crash=pytest.fail)], geometry)
    yield mover
    mover.close()


@pytest.mark.parametrize(("source_tokens", "target_tokens"), [(16, 64), (64, 16), (16, 16)])
def test_answer_goes_on_from_blocks_of_another_size(model_dir: Path, source_tokens: int, target_tokens: int) -> None:
    """The move is ordered before the step that computes its blocks, and leaves layer by layer."""
    neighbours: dict[WorkerId, RankMemory] = {}
    p, d = (
        Engine.load(model_dir, block_tokens=tokens, num_blocks=512 // tokens)
        for tokens in (source_tokens, target_tokens)
    )
    with (
        mover_of(P, p, neighbours) as source,
        mover_of(D, d, neighbours) as target,
        Driver(p) as p_driver,
        Driver(d) as d_driver,
    ):
        link = PeerLink("local", target.offers()["local"], target.geometry)
        source.add_peer(D, link).result(TIMEOUT_S)
        here, there = p_driver.add("here", PROMPT), d_driver.add("there", PROMPT)
        num_source, num_target = (engine.pool.layout.blocks_for(len(PROMPT)) for engine in (p, d))
        moved: Future[MoveOutcome] = Future()
        move = Move(
            D,
            Direction.WRITE,
            here.block_ids[:num_source],
            there.block_ids[:num_target],
            final_after_step=p.progress.num_begun + 1,
            digest_every=1,
        )
        source.move(move, moved.set_result)

        first = p_driver.step(here.slice(len(PROMPT)))["here"]
        outcome = moved.result(TIMEOUT_S)

        assert outcome.error is None
        assert outcome.num_bytes == num_target * d.pool.layout.block_bytes
        assert target.verify(outcome.digests).result(TIMEOUT_S)
        there.token_ids.append(first)
        there.num_computed = len(PROMPT)
        for _ in range(8):
            expected = p_driver.logits(here.slice(1))
            torch.testing.assert_close(d_driver.logits(there.slice(1)), expected, rtol=1e-4, atol=1e-4)
            token = int(expected[-1].argmax())
            here.token_ids.append(token)
            there.token_ids.append(token)
