import pytest

from core.transfers import PairStats


def test_hidden_fraction_is_what_was_not_exposed() -> None:
    assert PairStats(busy_s=0.4, exposed_s=0.1).hidden_fraction == pytest.approx(0.75)
    assert PairStats().hidden_fraction == 1.0


def test_fail_counts_by_code() -> None:
    stats = PairStats()
    for code in ("peer_lost", "kv_corrupt", "peer_lost"):
        stats.fail(code)
    assert stats.failures == {"peer_lost": 2, "kv_corrupt": 1}
