import pytest
import torch

from core.errors import InternalError
from deploy.bench.cores import two_cores
from deploy.bench.kv.byte_rates import KIB, MIB, ByteRates, size_text, why_not, worst_ratio
from deploy.bench.kv.contestants import CONTESTANTS, TCP, Contestant, ends_of
from deploy.bench.kv.exchange import Exchange, Pool, new_memory, pieces
from deploy.bench.kv.handoffs import handoff_checks
from deploy.bench.kv.hosted_worker import SenderTotals
from deploy.bench.kv.local_ends import TorchCopier

POOL_BYTES = 256 * KIB
RUN = {"ttft_ms": 210.0, "colocated_ttft_ms": 200.0, "hidden_fraction": 0.95, "idle_cpu_fraction": 0.01}


class ForgetfulCopier(TorchCopier):
    def copy(self, exchange: Exchange) -> None:
        super().copy(exchange)
        self._target.blocks[3].zero_()


@pytest.mark.parametrize("contestant", CONTESTANTS, ids=lambda contestant: contestant.name)
def test_contestant_copies_blocks_of_any_size_in_any_order(contestant: Contestant) -> None:
    pair = contestant.start(POOL_BYTES, two_cores())
    try:
        if contestant.is_optional and (reason := why_not(pair, 16 * KIB)):
            pytest.skip(reason)
        for block_bytes in (16 * KIB, 128 * KIB):
            pair.open(block_bytes)
            for number in range(3):
                assert pair.copy(Exchange(number, POOL_BYTES // block_bytes)) > 0
            pair.finish()
    finally:
        pair.close()


def test_blocks_that_do_not_arrive_are_an_error_not_a_figure() -> None:
    pair = Contestant("forgetful", ForgetfulCopier).start(POOL_BYTES, two_cores())
    try:
        pair.open(16 * KIB)
        with pytest.raises(InternalError, match="1 of 16 blocks"):
            pair.copy(Exchange(0, 16))
    finally:
        pair.close()


def test_contestant_that_cannot_get_ready_says_why_in_one_line() -> None:
    pair = Contestant("broken", broken_copier).start(POOL_BYTES, two_cores())
    try:
        assert why_not(pair, 16 * KIB) == "ImportError: libfast.so is missing"
    finally:
        pair.close()


def broken_copier(_source: Pool, _target: Pool) -> TorchCopier:
    raise ImportError("libfast.so is missing")


def test_bytes_that_go_another_way_are_an_error_not_a_figure() -> None:
    pair = Contestant("nixl-shm", ends_of("nixl", "cma"), TCP).start(MIB, two_cores())
    try:
        with pytest.raises(InternalError, match="tcp carries the bytes instead of cma"):
            pair.open(64 * KIB)
    finally:
        pair.close()


def test_block_in_a_wrong_place_or_of_an_earlier_round_is_wrong() -> None:
    source, target = (Pool(new_memory(64 * KIB), 4 * KIB) for _ in range(2))
    exchange = Exchange(1, 16)
    source.mark(exchange)
    assert target.num_wrong(exchange) == 16
    TorchCopier(source, target).copy(exchange)
    assert target.num_wrong(exchange) == 0
    assert target.num_wrong(Exchange(2, 16)) == 16
    target.blocks[[0, 1]] = target.blocks[[1, 0]].clone()
    assert target.num_wrong(exchange) == 2
    assert not torch.equal(source.blocks, target.blocks)


def test_pieces_are_of_whole_blocks_and_at_least_one() -> None:
    ids = Exchange(0, 5).source_ids
    assert [len(piece) for piece in pieces(ids, block_bytes=4, piece_bytes=9)] == [2, 2, 1]
    assert [len(piece) for piece in pieces(ids, block_bytes=10, piece_bytes=9)] == [1] * 5
    assert sorted(ids) == [0, 1, 2, 3, 4]


def test_ratio_is_the_worst_of_large_blocks() -> None:
    ours = {64 * KIB: 1.0, MIB: 6.0, 8 * MIB: 8.0}
    theirs = {64 * KIB: 9.0, MIB: 5.0, 8 * MIB: 10.0}
    assert worst_ratio(ours, theirs) == pytest.approx(0.8)
    assert size_text(64 * KIB) == "64 KiB"
    assert size_text(8 * MIB) == "8 MiB"


def test_byte_checks_compare_each_path_with_its_own_and_with_the_best_other() -> None:
    rates = {"memcpy": 8.0, "nixl-shm": 6.0, "nixl-tcp": 3.0, "socket": 2.0, "grpc": 1.0, "gloo": 4.0}
    bench = ByteRates(8 * MIB, (MIB,), 1, {name: {MIB: rate} for name, rate in rates.items()})
    figures = {check["name"]: (check["value"], check["holds"]) for check in bench.checks()}
    assert figures == {
        "shm_vs_memcpy": (0.75, False),
        "tcp_vs_socket": (1.5, True),
        "shm_vs_best_other": (1.5, True),
        "tcp_vs_best_other": (0.75, False),
    }


def test_handoff_checks_take_the_worse_pair() -> None:
    slow = {**RUN, "ttft_ms": 250.0, "hidden_fraction": 0.8, "idle_cpu_fraction": 0.04}
    checks = handoff_checks([RUN, slow], {"ms_p50": 0.5})
    figures = {check["name"]: (check["value"], check["holds"]) for check in checks}
    assert figures == {
        "hidden_fraction": (0.8, False),
        "ttft_vs_colocated": (1.25, False),
        "handoff_overhead_ms_p50": (0.5, True),
        "idle_cpu_fraction": (0.04, False),
    }
    assert all(check["holds"] for check in handoff_checks([RUN], {"ms_p50": 0.5}))


def test_totals_grow_by_what_one_handoff_added() -> None:
    before, after = SenderTotals(2, 10, 1.0, 0.5, 0.25, 0.75), SenderTotals(3, 14, 1.5, 0.5, 0.75, 1.0)
    assert after.since(before) == SenderTotals(1, 4, 0.5, 0.0, 0.5, 0.25)
