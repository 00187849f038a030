"""What only NIXL can get wrong."""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import nixl
import numpy as np
import pytest
import torch
import xxhash

from core.errors import ConfigError, HandoffError, LostConnectionError
from core.ids import WorkerId
from kvtransfer import nixl_transport, ucx
from kvtransfer.move import Direction
from kvtransfer.nixl_transport import LOCAL_SIDE, MAGIC, NixlTransport
from kvtransfer.runs import RunTable
from kvtransfer.transport import TransferState
from tests.kvtransfer.fleets import Fleet, fleet_process, random_memory, whole_blocks

P, D = WorkerId("prefill-0", 7), WorkerId("decode-0", 3)
BIG_BLOCK_BYTES = 65_536
MANY_BLOCKS = range(512)  # 32 MiB: more than goes out before the receiver reads


def test_peer_makes_no_progress_add_peer_fails_and_can_be_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = Fleet("nixl")
    fleet.start(P)
    fleet.start(D)
    monkeypatch.setattr(nixl_transport, "WARM_UP_S", 0.0)
    with pytest.raises(HandoffError, match="decode-0@3 did not answer over NIXL within 0 s"):
        fleet.connect(P, D)
    monkeypatch.undo()
    fleet.connect(P, D)
    fleet.copy(P, D, Direction.WRITE, [1], [2])
    assert torch.equal(fleet.pool(D)[2], fleet.pool(P)[1])
    fleet.close()


@pytest.mark.parametrize(("backend", "message"), [("RDMA", "this machine has .*UCX"), ("GDS", "does not start")])
def test_backend_that_is_not_there_is_refused_by_name(backend: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"the NIXL backend.* '{backend}'.* {message}"):
        NixlTransport(P, random_memory(1, 64), (backend,))


def test_memory_that_may_not_be_accessed_costs_a_warning_and_says_tcp(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ucx, "access_refusal", lambda _pid, _address: PermissionError(1, "Operation not permitted"))
    fleet = Fleet("nixl")
    fleet.start(P)
    fleet.start(D)
    with caplog.at_level(logging.WARNING):
        assert fleet.connect(P, D) == "tcp"
        assert fleet.connect(P, D) == "tcp"
    (record,) = caplog.records
    assert "decode-0@3 is on this host" in record.getMessage()
    assert "(Operation not permitted)" in record.getMessage()
    assert "--cap-add=SYS_PTRACE" in record.getMessage()
    fleet.close()


def test_what_a_dead_source_sent_lands_before_it_is_forgotten() -> None:
    """Over TCP, where the receiving process puts bytes where they belong: one that does nothing takes nothing in.

    Until then the transfer is in flight. If what lies in its socket landed after the source was forgotten, it could
    land in a block of somebody else.
    """
    with fleet_process("nixl", UCX_TLS="tcp") as source, fleet_process("nixl", UCX_TLS="tcp") as target:
        source.start(P, len(MANY_BLOCKS), BIG_BLOCK_BYTES)
        target.start(D, len(MANY_BLOCKS), BIG_BLOCK_BYTES)
        assert source.add(P, D, target.metadata(D)) == "tcp"
        target.freeze()
        source.post(P, D, Direction.WRITE, MANY_BLOCKS, MANY_BLOCKS)
        assert source.states(1000) == {TransferState.IN_FLIGHT}
        target.resume()
        source.finish()
        assert torch.equal(target.pool(D), source.pool(P))

        target.overwrite(D)
        before = target.pool(D)
        target.freeze()
        source.post(P, D, Direction.WRITE, MANY_BLOCKS, MANY_BLOCKS)
        source.states(10)
        source.process.kill()
        source.process.join()
        target.remove(D, P)
        after = target.pool(D)
        assert not torch.equal(after, before)
        target.resume()
        for _ in range(100):
            target.progress()
        assert torch.equal(target.pool(D), after)


def test_metadata_that_is_too_short_is_refused_although_its_digest_is_right() -> None:
    transport = NixlTransport(P, random_memory(1, 64))
    with pytest.raises(HandoffError, match="worker decode-0@3 sent NIXL metadata"):
        transport.add_peer(D, MAGIC + xxhash.xxh3_64_digest(b"short") + b"short", whole_blocks(1), whole_blocks(1))
    transport.close()


@pytest.fixture
def pair() -> Iterator[tuple[NixlTransport, NixlTransport]]:
    """Of P and D, not connected."""
    pair = tuple(NixlTransport(worker, random_memory(16, 512)) for worker in (P, D))
    yield pair
    for transport in pair:
        transport.close()


def connect(source: NixlTransport, target: NixlTransport, table: RunTable) -> None:
    with ThreadPoolExecutor(1) as threads:
        added = threads.submit(source.add_peer, D, target.metadata(), table, table)
        while not added.done():
            target.progress()
        assert added.result()


def test_broken_connection_is_no_death_and_is_made_anew(
    pair: tuple[NixlTransport, NixlTransport], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = pair
    connect(source, target, whole_blocks())
    run = np.array([1], dtype=np.int32)
    transfer = source.post(D, Direction.WRITE, run, run)

    def disconnected(_handle: object) -> str:
        raise nixl.nixlRemoteDisconnectError("reset by peer")

    monkeypatch.setattr(source._agent, "check_xfer_state", disconnected)
    with pytest.raises(LostConnectionError, match="transfer with worker decode-0@3 failed: the connection broke"):
        transfer.poll()
    monkeypatch.undo()

    loaded: list[bytes] = []
    load = source._agent.add_remote_agent
    monkeypatch.setattr(source._agent, "add_remote_agent", lambda data: loaded.append(data) or load(data))
    for _ in range(2):
        connect(source, target, whole_blocks())
    assert len(loaded) == 1
    again = source.post(D, Direction.WRITE, run, run)
    while again.poll() is TransferState.IN_FLIGHT:
        target.progress()
    assert torch.equal(target._memory.pool[1], source._memory.pool[1])


def test_descriptors_are_prepared_once_per_kind_of_runs(
    pair: tuple[NixlTransport, NixlTransport], monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are tens of thousands of them, and preparing holds up all other transfers."""
    source, target = pair
    prepared: list[str] = []
    prepare = source._agent.prep_xfer_dlist

    def noted(agent: str, *arguments: object) -> object:
        prepared.append(agent)
        return prepare(agent, *arguments)

    monkeypatch.setattr(source._agent, "prep_xfer_dlist", noted)
    for _ in range(2):
        connect(source, target, whole_blocks())
    assert prepared == [LOCAL_SIDE, str(D)]
    source.remove_peer(D)
    connect(source, target, whole_blocks())
    assert prepared[2:] == [str(D)]
    connect(source, target, whole_blocks(8))
    assert prepared[3:] == [LOCAL_SIDE, str(D)]
    run = np.array([7], dtype=np.int32)
    transfer = source.post(D, Direction.WRITE, run, run)
    while transfer.poll() is TransferState.IN_FLIGHT:
        target.progress()
    assert torch.equal(target._memory.pool[7], source._memory.pool[7])
