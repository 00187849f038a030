from core.clock import ManualClock
from core.ids import WorkerId
from core.transfers import PairStats
from worker.transfer_log import REPORT_EVERY_S, TransferLog

P, D = WorkerId("prefill-0", 1), WorkerId("decode-0", 1)


def test_log_takes_a_copy_once_a_second() -> None:
    clock, stats = ManualClock(), PairStats(num_handoffs=1, failures={"peer_lost": 1})
    sent, received = {D: stats}, {P: PairStats(num_expired_leases=2)}
    log = TransferLog(sent, received, clock)
    first = log.take()
    assert first is not None
    assert (first.sent, first.received) == (sent, received)
    stats.num_handoffs = 5
    stats.fail("peer_lost")
    assert first.sent[D] == PairStats(num_handoffs=1, failures={"peer_lost": 1})
    clock.advance(REPORT_EVERY_S / 2)
    assert log.take() is None
    clock.advance(REPORT_EVERY_S / 2)
    second = log.take()
    assert second is not None
    assert second.sent[D].failures == {"peer_lost": 2}
