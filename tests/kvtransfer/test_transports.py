"""What every transport must do, over each of them; then what only NIXL can get wrong."""

from collections.abc import Iterator

import pytest
import torch

from core.errors import HandoffError
from core.ids import WorkerId
from kvtransfer import nixl_transport
from kvtransfer.transport import WriteState
from tests.kvtransfer.fleets import BIG_BLOCK_TOKENS, Fleet, finish, peer_process

P, D, OTHER = WorkerId("prefill-0", 7), WorkerId("decode-0", 3), WorkerId("decode-1", 3)


@pytest.fixture(params=["local", "nixl"])
def fleet(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    fleet = Fleet(request.param)
    yield fleet
    fleet.close()


@pytest.fixture
def pair(fleet: Fleet) -> Fleet:
    """P and D, with P connected to D."""
    fleet.start(P)
    fleet.start(D)
    fleet.connect(P, D)
    return fleet


@pytest.mark.parametrize(("local", "remote"), [([3], [3]), ([0, 1, 2], [2, 1, 0]), ([15, 2, 9, 4], [0, 15, 7, 8])])
def test_write_scattered_ids_fills_the_named_blocks_and_nothing_else(
    pair: Fleet, local: list[int], remote: list[int]
) -> None:
    expected, source = pair.pools[D].tensor.clone(), pair.pools[P].tensor.clone()
    expected[remote] = source[local]

    pair.write(P, D, local, remote)

    assert torch.equal(pair.pools[D].tensor, expected)
    assert torch.equal(pair.pools[P].tensor, source)


def test_write_thousands_of_blocks_arrives_exactly(fleet: Fleet) -> None:
    num_blocks = 4096
    fleet.start(P, num_blocks)
    fleet.start(D, num_blocks)
    fleet.connect(P, D)
    generator = torch.Generator().manual_seed(0)
    local, remote = (torch.randperm(num_blocks, generator=generator)[:3000].tolist() for _ in range(2))
    expected = fleet.pools[D].tensor.clone()
    expected[remote] = fleet.pools[P].tensor[local]

    fleet.write(P, D, local, remote)

    assert torch.equal(fleet.pools[D].tensor, expected)


def test_write_twice_to_one_block_leaves_the_second(pair: Fleet) -> None:
    pair.write(P, D, [1], [5])
    pair.write(P, D, [2], [5])
    assert torch.equal(pair.pools[D].tensor[5], pair.pools[P].tensor[2])


def test_write_both_ways_between_one_pair(pair: Fleet) -> None:
    pair.connect(D, P)
    pair.write(P, D, [1], [5])
    pair.write(D, P, [5], [9])
    assert torch.equal(pair.pools[P].tensor[9], pair.pools[P].tensor[1])


def test_write_two_targets_each_gets_its_own(pair: Fleet) -> None:
    pair.start(OTHER)
    pair.connect(P, OTHER)
    before = pair.pools[D].tensor.clone()
    pair.write(P, OTHER, [4], [4])
    assert torch.equal(pair.pools[OTHER].tensor[4], pair.pools[P].tensor[4])
    assert torch.equal(pair.pools[D].tensor, before)


def test_add_peer_twice_changes_nothing(pair: Fleet) -> None:
    pair.connect(P, D)
    pair.write(P, D, [1], [2])
    assert torch.equal(pair.pools[D].tensor[2], pair.pools[P].tensor[1])


def test_write_unknown_peer_is_refused_by_name(pair: Fleet) -> None:
    with pytest.raises(HandoffError, match="decode-1@3 is not connected"):
        pair.transports[P].post_write(OTHER, [0], [0])


def test_write_block_the_peer_does_not_have_is_refused(pair: Fleet) -> None:
    with pytest.raises(HandoffError, match="decode-0@3"):
        pair.transports[P].post_write(D, [0], [16])


@pytest.mark.parametrize("metadata", [b"", b"decode", bytes(200)])
def test_add_peer_wrong_metadata_is_refused_by_name(fleet: Fleet, metadata: bytes) -> None:
    fleet.start(P)
    fleet.start(D)
    with pytest.raises(HandoffError, match="decode-0@3"):
        fleet.connect(P, D, metadata)


def test_add_peer_metadata_of_another_worker_is_refused(fleet: Fleet) -> None:
    for worker in (P, D, OTHER):
        fleet.start(worker)
    with pytest.raises(HandoffError, match="decode-0@3"):
        fleet.connect(P, D, fleet.transports[OTHER].metadata())


def test_add_peer_metadata_cut_short_is_refused_and_the_whole_is_taken(fleet: Fleet) -> None:
    fleet.start(P)
    metadata = fleet.start(D).metadata()
    with pytest.raises(HandoffError, match="decode-0@3"):
        fleet.connect(P, D, metadata[:-1] if fleet.kind == "local" else metadata[:60])
    fleet.connect(P, D)
    fleet.write(P, D, [1], [2])
    assert torch.equal(fleet.pools[D].tensor[2], fleet.pools[P].tensor[1])


def test_add_peer_other_block_size_is_refused_with_both_values(fleet: Fleet) -> None:
    fleet.start(P, block_tokens=4)
    fleet.start(D, block_tokens=8)
    mine, theirs = (fleet.pools[worker].layout.block_bytes for worker in (P, D))
    with pytest.raises(HandoffError, match=f"decode-0@3 has blocks of {theirs} bytes.* this one {mine}"):
        fleet.connect(P, D)


def test_remove_peer_then_write_is_refused_and_connecting_again_works(pair: Fleet) -> None:
    pair.transports[P].remove_peer(D)
    pair.transports[P].remove_peer(OTHER)  # unknown
    with pytest.raises(HandoffError, match="not connected"):
        pair.transports[P].post_write(D, [0], [0])
    pair.connect(P, D)
    pair.write(P, D, [1], [2])
    assert torch.equal(pair.pools[D].tensor[2], pair.pools[P].tensor[1])


def test_restarted_peer_is_another_peer(pair: Fleet) -> None:
    """The new incarnation gets the bytes while the old pool, still in memory, gets none."""
    restarted = WorkerId(D.name, D.incarnation + 1)
    pair.stop(D)
    pair.start(restarted)
    with pytest.raises(HandoffError, match="decode-0@4 is not connected"):
        pair.transports[P].post_write(restarted, [0], [0])
    pair.connect(P, restarted)
    pair.transports[P].remove_peer(D)
    before = pair.pools[D].tensor.clone()

    pair.write(P, restarted, [1], [2])

    assert torch.equal(pair.pools[restarted].tensor[2], pair.pools[P].tensor[1])
    assert torch.equal(pair.pools[D].tensor, before)


def test_close_leaves_other_pairs_working(pair: Fleet) -> None:
    pair.start(OTHER)
    pair.connect(P, OTHER)
    pair.stop(D)
    pair.write(P, OTHER, [1], [2])
    assert torch.equal(pair.pools[OTHER].tensor[2], pair.pools[P].tensor[1])


def test_local_write_to_a_closed_neighbour_is_refused() -> None:
    fleet = Fleet("local")
    fleet.start(P)
    fleet.start(D)
    fleet.connect(P, D)
    fleet.stop(D)
    with pytest.raises(HandoffError, match="decode-0@3 is not connected"):
        fleet.transports[P].post_write(D, [0], [0])
    fleet.close()


def test_nixl_peer_makes_no_progress_add_peer_fails_and_can_be_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = Fleet("nixl")
    fleet.start(P)
    metadata = fleet.start(D).metadata()
    monkeypatch.setattr(nixl_transport, "WARM_UP_S", 0.0)
    with pytest.raises(HandoffError, match="decode-0@3 did not answer within 0 s"):
        fleet.transports[P].add_peer(D, metadata)
    monkeypatch.undo()
    fleet.connect(P, D)
    fleet.write(P, D, [1], [2])
    assert torch.equal(fleet.pools[D].tensor[2], fleet.pools[P].tensor[1])
    fleet.close()


def test_nixl_target_in_another_process_gets_the_bytes() -> None:
    fleet = Fleet("nixl")
    fleet.start(P)
    with peer_process(D, num_blocks=16) as target:
        fleet.transports[P].add_peer(D, target.ask("metadata"))
        expected = target.ask("blocks")
        expected[[9, 0, 4]] = fleet.pools[P].tensor[[1, 2, 3]]
        fleet.write(P, D, [1, 2, 3], [9, 0, 4])
        assert torch.equal(target.ask("blocks"), expected)
    fleet.close()


def test_nixl_over_tcp_between_two_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As between two machines without RDMA; then the target dies under a write."""
    monkeypatch.setenv("UCX_TLS", "tcp")
    num_blocks = 64
    with (
        peer_process(P, num_blocks, BIG_BLOCK_TOKENS) as source,
        peer_process(D, num_blocks, BIG_BLOCK_TOKENS) as target,
    ):
        source.ask("connect", D, target.ask("metadata"))
        expected = target.ask("blocks")
        expected[[60, 0, 4]] = source.ask("blocks")[[1, 2, 3]]
        source.ask("write", D, [1, 2, 3], [60, 0, 4])
        assert torch.equal(target.ask("blocks"), expected)

        target.ask("freeze")
        answer = source.wish("write", D, list(range(num_blocks)), list(range(num_blocks)))
        target.process.kill()
        error = answer()
        assert isinstance(error, HandoffError)
        assert "the NIXL write failed" in str(error)
        with pytest.raises(HandoffError, match="could not write to worker decode-0@3"):
            source.ask("write", D, [1], [1])


def test_nixl_write_in_flight_is_not_done_before_the_target_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UCX_TLS", "tcp")
    num_blocks = 64
    fleet = Fleet("nixl")
    with peer_process(D, num_blocks, BIG_BLOCK_TOKENS) as target:
        fleet.start(P, num_blocks, BIG_BLOCK_TOKENS)
        fleet.transports[P].add_peer(D, target.ask("metadata"))
        target.ask("freeze")
        write = fleet.transports[P].post_write(D, list(range(num_blocks)), list(range(num_blocks)))
        assert [write.poll() for _ in range(1000)] == [WriteState.IN_FLIGHT] * 1000
        target.ask("resume")
        finish(write)
        assert torch.equal(target.ask("blocks"), fleet.pools[P].tensor)
    fleet.close()
