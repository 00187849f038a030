import pytest

from core.ids import WorkerId
from core.transfers import PairStats, pair_of


def test_hidden_fraction_is_what_was_not_exposed() -> None:
    assert PairStats(busy_s=0.4, exposed_s=0.1).hidden_fraction == pytest.approx(0.75)
    assert PairStats().hidden_fraction == 1.0


def test_fail_counts_by_code() -> None:
    stats = PairStats()
    for code in ("peer_lost", "kv_corrupt", "peer_lost"):
        stats.fail(code)
    assert stats.failures == {"peer_lost": 2, "kv_corrupt": 1}


def test_totals_are_kept_of_the_latest_incarnation_of_each_peer() -> None:
    pairs: dict[WorkerId, PairStats] = {}
    first, other = pair_of(pairs, WorkerId("d0", 1)), pair_of(pairs, WorkerId("d1", 1))
    assert pair_of(pairs, WorkerId("d0", 1)) is first
    second = pair_of(pairs, WorkerId("d0", 2))
    assert pairs == {WorkerId("d1", 1): other, WorkerId("d0", 2): second}
