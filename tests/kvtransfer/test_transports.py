"""What every transport must do, over each of them. What only one can get wrong is tested with that one."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from core.errors import HandoffError, LostConnectionError
from core.ids import WorkerId
from kvtransfer.move import Direction
from kvtransfer.runs import Region, RunTable
from tests.kvtransfer.fleets import BLOCK_BYTES, NUM_BLOCKS, STAGING_BYTES, Fleet, fleet_process, whole_blocks

P, D, OTHER = WorkerId("prefill-0", 7), WorkerId("decode-0", 3), WorkerId("decode-1", 3)
BIG_BLOCK_BYTES = 65_536  # 64 of them are more than goes out before the receiver reads
BIG_BLOCKS = range(64)

both_directions = pytest.mark.parametrize("direction", Direction)


@pytest.fixture(scope="module")
def tcp_fleet() -> Iterator[Fleet]:
    """In a process of its own, because UCX reads UCX_TLS once."""
    with fleet_process("nixl", UCX_TLS="tcp") as fleet:
        yield fleet


@pytest.fixture(params=["local", "nixl", "nixl over tcp", "collective"])
def fleet(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    if request.param == "nixl over tcp":
        fleet: Fleet = request.getfixturevalue("tcp_fleet")
        yield fleet
        fleet.reset()
    else:
        fleet = Fleet(request.param)
        yield fleet
        fleet.close()


@pytest.fixture
def pair(fleet: Fleet) -> Fleet:
    """P and D; P starts transfers."""
    fleet.start(P)
    fleet.start(D)
    fleet.connect(P, D)
    return fleet


@both_directions
@pytest.mark.parametrize(("local", "remote"), [([3], [3]), ([0, 1, 2], [2, 1, 0]), ([15, 2, 9, 4], [0, 15, 7, 8])])
def test_copy_of_scattered_runs_fills_the_named_ones_and_nothing_else(
    pair: Fleet, direction: Direction, local: list[int], remote: list[int]
) -> None:
    here, there = pair.pool(P), pair.pool(D)
    if direction is Direction.WRITE:
        there[remote] = here[local]
    else:
        here[local] = there[remote]

    pair.copy(P, D, direction, local, remote)

    assert torch.equal(pair.pool(P), here)
    assert torch.equal(pair.pool(D), there)


@both_directions
def test_copy_of_thousands_of_runs_arrives_exactly(fleet: Fleet, direction: Direction) -> None:
    num_blocks = 4096
    for worker in (P, D):
        fleet.start(worker, num_blocks)
    fleet.connect(P, D)
    generator = torch.Generator().manual_seed(0)
    local, remote = (torch.randperm(num_blocks, generator=generator)[:3000].tolist() for _ in range(2))
    here, there = fleet.pool(P), fleet.pool(D)
    if direction is Direction.WRITE:
        there[remote] = here[local]
    else:
        here[local] = there[remote]

    fleet.copy(P, D, direction, local, remote)

    assert torch.equal(fleet.pool(P), here)
    assert torch.equal(fleet.pool(D), there)


@both_directions
def test_copy_of_runs_in_order_and_of_megabytes_arrives_exactly(fleet: Fleet, direction: Direction) -> None:
    """Runs that adjoin may go as one; more bytes than a buffer may not."""
    for worker in (P, D):
        fleet.start(worker, len(BIG_BLOCKS), BIG_BLOCK_BYTES)
    fleet.connect(P, D)
    source, target = (P, D) if direction is Direction.WRITE else (D, P)
    expected = fleet.pool(source)

    fleet.copy(P, D, direction, BIG_BLOCKS, BIG_BLOCKS)

    assert torch.equal(fleet.pool(target), expected)


ROWS = RunTable(
    Region.POOL,
    NUM_BLOCKS,
    block_stride_bytes=BLOCK_BYTES,
    num_rows=3,
    row_stride_bytes=128,
    first_byte=32,
    run_bytes=64,
)
OTHER_ROWS = RunTable(
    Region.POOL,
    NUM_BLOCKS,
    block_stride_bytes=BLOCK_BYTES,
    num_rows=3,
    row_stride_bytes=64,
    first_byte=192,
    run_bytes=64,
)
STAGED = RunTable(
    Region.STAGING,
    STAGING_BYTES // 192,
    block_stride_bytes=192,
    num_rows=3,
    row_stride_bytes=64,
    first_byte=0,
    run_bytes=64,
)


def bytes_of(fleet: Fleet, worker: WorkerId, table: RunTable) -> tuple[Tensor, Tensor]:
    """A copy of a worker's region, and its runs as a view of that: `[num_blocks, num_rows, run_bytes]`."""
    region = fleet.pool(worker).flatten() if table.region is Region.POOL else fleet.staging(worker)
    shape = (table.num_blocks, table.num_rows, table.run_bytes)
    return region, region.as_strided(shape, (table.block_stride_bytes, table.row_stride_bytes, 1), table.first_byte)


@both_directions
@pytest.mark.parametrize(("local", "remote"), [(ROWS, OTHER_ROWS), (STAGED, ROWS), (ROWS, STAGED)])
def test_copy_of_rows_of_blocks_touches_only_them(
    fleet: Fleet, direction: Direction, local: RunTable, remote: RunTable
) -> None:
    """As between workers that hold other heads, and from where blocks were put together."""
    fleet.start(P)
    fleet.start(D)
    fleet.connect(P, D, local, remote)
    (here, my_runs), (there, their_runs) = bytes_of(fleet, P, local), bytes_of(fleet, D, remote)
    pairs = [(5, 11), (0, 3), (12, 0)]
    for mine, theirs in pairs:
        if direction is Direction.WRITE:
            their_runs[theirs, 1:] = my_runs[mine, 1:]
        else:
            my_runs[mine, 1:] = their_runs[theirs, 1:]

    my_ids = local.runs_of([mine for mine, _ in pairs], 1, 3)
    their_ids = remote.runs_of([theirs for _, theirs in pairs], 1, 3)
    fleet.copy(P, D, direction, my_ids, their_ids)

    assert torch.equal(bytes_of(fleet, P, local)[0], here)
    assert torch.equal(bytes_of(fleet, D, remote)[0], there)


def test_write_twice_to_one_run_leaves_the_second(pair: Fleet) -> None:
    pair.copy(P, D, Direction.WRITE, [1], [5])
    pair.copy(P, D, Direction.WRITE, [2], [5])
    assert torch.equal(pair.pool(D)[5], pair.pool(P)[2])


def test_both_start_transfers_with_each_other_at_once(fleet: Fleet) -> None:
    fleet.start(P)
    fleet.start(D)
    fleet.connect_both_ways(P, D)
    here, there = fleet.pool(P), fleet.pool(D)
    for i in range(4):
        fleet.post(P, D, Direction.WRITE, [i], [i])
        fleet.post(D, P, Direction.WRITE, [8 + i], [8 + i])
        fleet.post(P, D, Direction.READ, [4 + i], [4 + i])
    fleet.finish()
    assert torch.equal(fleet.pool(P), torch.cat([here[:4], there[4:12], here[12:]]))
    assert torch.equal(fleet.pool(D), torch.cat([here[:4], there[4:]]))


def test_two_targets_each_get_their_own(pair: Fleet) -> None:
    pair.start(OTHER)
    pair.connect(P, OTHER)
    before = pair.pool(D)
    pair.copy(P, OTHER, Direction.WRITE, [4], [4])
    assert torch.equal(pair.pool(OTHER)[4], pair.pool(P)[4])
    assert torch.equal(pair.pool(D), before)


def test_add_peer_again_takes_the_new_runs(pair: Fleet) -> None:
    pair.connect(P, D, ROWS, OTHER_ROWS)
    _, expected = bytes_of(pair, P, ROWS)
    pair.copy(P, D, Direction.WRITE, [3], [7])
    assert torch.equal(bytes_of(pair, D, OTHER_ROWS)[1][2, 1], expected[1, 0])


def test_post_to_an_unknown_peer_is_refused_by_name(pair: Fleet) -> None:
    with pytest.raises(HandoffError, match="decode-1@3 is not connected"):
        pair.post(P, OTHER, Direction.WRITE, [0], [0])


@pytest.mark.parametrize(("local", "remote"), [([0], [NUM_BLOCKS]), ([NUM_BLOCKS], [0]), ([-1], [0]), ([0], [-1])])
def test_post_of_runs_that_are_not_there_is_refused_and_others_go_on(
    pair: Fleet, local: list[int], remote: list[int]
) -> None:
    with pytest.raises(HandoffError, match=r"were asked for, there are 0 to 15"):
        pair.post(P, D, Direction.WRITE, local, remote)
    pair.copy(P, D, Direction.WRITE, [1], [2])
    assert torch.equal(pair.pool(D)[2], pair.pool(P)[1])


def test_add_peer_with_runs_outside_its_memory_is_refused(fleet: Fleet) -> None:
    fleet.start(P)
    fleet.start(D)
    inside, outside = whole_blocks(NUM_BLOCKS), whole_blocks(NUM_BLOCKS + 1)
    for tables in ((inside, outside), (outside, inside)):
        with pytest.raises(HandoffError, match=f"is not inside {NUM_BLOCKS * BLOCK_BYTES} bytes"):
            fleet.connect(P, D, *tables)


def test_add_peer_with_runs_that_do_not_correspond_is_refused_with_both_values(fleet: Fleet) -> None:
    fleet.start(P)
    fleet.start(D)
    with pytest.raises(HandoffError, match="3 runs of 64 bytes there, 1 of 512 here"):
        fleet.connect(P, D, whole_blocks(), ROWS)


@pytest.mark.parametrize("metadata", [b"", b"decode", bytes(400), b'{"worker": 1}'])
def test_add_peer_with_wrong_metadata_is_refused_by_name(fleet: Fleet, metadata: bytes) -> None:
    fleet.start(P)
    with pytest.raises(HandoffError, match="decode-0@3"):
        fleet.add(P, D, metadata)


def test_add_peer_with_metadata_of_another_worker_is_refused(fleet: Fleet) -> None:
    for worker in (P, D, OTHER):
        fleet.start(worker)
    with pytest.raises(HandoffError, match="decode-0@3"):
        fleet.add(P, D, fleet.metadata(OTHER))


def test_add_peer_with_metadata_cut_short_is_refused_and_the_whole_is_taken(fleet: Fleet) -> None:
    fleet.start(P)
    fleet.start(D)
    metadata = fleet.metadata(D)
    for num_bytes in (len(metadata) - 1, len(metadata) // 2):
        with pytest.raises(HandoffError, match="decode-0@3"):
            fleet.add(P, D, metadata[:num_bytes])
    fleet.connect(P, D)
    fleet.copy(P, D, Direction.WRITE, [1], [2])
    assert torch.equal(fleet.pool(D)[2], fleet.pool(P)[1])


def test_removed_peer_is_refused_and_can_be_added_again(pair: Fleet) -> None:
    for _ in range(2):
        pair.remove(P, D)
        pair.remove(D, P)
        pair.remove(P, OTHER)  # unknown
        with pytest.raises(HandoffError, match="not connected"):
            pair.post(P, D, Direction.WRITE, [0], [0])
        pair.connect(P, D)
        pair.copy(P, D, Direction.WRITE, [1], [2])
        assert torch.equal(pair.pool(D)[2], pair.pool(P)[1])


def test_restarted_peer_is_another_peer(pair: Fleet) -> None:
    """The new incarnation gets the bytes while the old memory, still there, gets none."""
    restarted = WorkerId(D.name, D.incarnation + 1)
    pair.stop(D)
    pair.start(restarted)
    with pytest.raises(HandoffError, match="decode-0@4 is not connected"):
        pair.post(P, restarted, Direction.WRITE, [0], [0])
    pair.connect(P, restarted)
    pair.remove(P, D)
    before = pair.pool(D)

    pair.copy(P, restarted, Direction.WRITE, [1], [2])

    assert torch.equal(pair.pool(restarted)[2], pair.pool(P)[1])
    assert torch.equal(pair.pool(D), before)


def test_close_leaves_other_pairs_working(pair: Fleet) -> None:
    pair.start(OTHER)
    pair.connect(P, OTHER)
    pair.stop(D)
    pair.copy(P, OTHER, Direction.WRITE, [1], [2])
    assert torch.equal(pair.pool(OTHER)[2], pair.pool(P)[1])


PROCESS_KINDS = [("nixl", "all"), ("nixl", "tcp"), ("collective", "all")]


@pytest.mark.parametrize(("kind", "ucx_tls"), PROCESS_KINDS)
def test_between_two_processes_then_one_dies(kind: str, ucx_tls: str) -> None:
    """Both directions; then the target dies, in the middle of a transfer where there is a middle."""
    with fleet_process(kind, UCX_TLS=ucx_tls) as source, fleet_process(kind, UCX_TLS=ucx_tls) as target:
        source.start(P, len(BIG_BLOCKS), BIG_BLOCK_BYTES)
        target.start(D, len(BIG_BLOCKS), BIG_BLOCK_BYTES)
        target.expect(D, P, source.metadata(P))
        source.add(P, D, target.metadata(D))
        here, there = source.pool(P), target.pool(D)
        there[[60, 0, 4]] = here[[1, 2, 3]]
        here[[9, 8]] = there[[5, 60]]
        source.copy(P, D, Direction.WRITE, [1, 2, 3], [60, 0, 4])
        source.copy(P, D, Direction.READ, [9, 8], [5, 60])
        assert torch.equal(source.pool(P), here)
        assert torch.equal(target.pool(D), there)

        target.freeze()
        answer = source.wish("copy_until_error", P, D, Direction.WRITE, [*BIG_BLOCKS] * 8, [*BIG_BLOCKS] * 8)
        target.process.kill()
        with pytest.raises(LostConnectionError, match="decode-0@3"):
            answer()
        with pytest.raises(LostConnectionError, match="decode-0@3"):
            source.copy(P, D, Direction.READ, [1], [1])
        source.remove(P, D)
