import pytest

from loadtest.load.faults import FaultRecord
from loadtest.load.record import RequestRecord
from loadtest.load.validity import client_share, why_not_valid
from tests.loadtest.load.chunks import record

ON_TIME = [record(number, float(number), sent_s=number + 0.001) for number in range(100)]
LATE = [record(100, 100.0, sent_s=100.5), record(101, 101.0, sent_s=101.5)]
DONE = FaultRecord(1.0, 2.0, "kill decode-0", "killed")


def reasons(records: list[RequestRecord], cpu_share: float = 0.5, *faults: FaultRecord) -> list[str]:
    return why_not_valid(records, client_share(records, cpu_share), 20.0, faults)


def test_client_on_time_with_time_to_spare_is_valid() -> None:
    assert reasons(ON_TIME, 0.89, DONE) == []


@pytest.mark.parametrize(
    ("records", "cpu_share", "faults", "reason"),
    [
        (ON_TIME + 2 * LATE, 0.5, (), "requests were sent 500.0 ms late at p99, more than 20 ms"),
        (ON_TIME, 0.91, (), "the client used 0.91 of a core, more than 0.9"),
        ([], 0.5, (), "no request was measured: the run ended in its warm-up, or had nothing to send"),
        (
            [*ON_TIME, record(1, error="max_open")],
            0.5,
            (),
            "1 request(s) were not sent, for --max-open connections were in use",
        ),
        (
            ON_TIME,
            0.5,
            (DONE, FaultRecord(3.0, 3.5, "flip decode-0", error="it is gone")),
            "'flip decode-0' failed: it is gone",
        ),
    ],
)
def test_each_doubt_is_a_reason(
    records: list[RequestRecord], cpu_share: float, faults: tuple[FaultRecord, ...], reason: str
) -> None:
    assert reasons(records, cpu_share, *faults) == [reason]


def test_one_late_request_of_many_is_no_doubt_and_is_shown() -> None:
    records = [*(record(number) for number in range(1000)), LATE[0]]
    share = client_share(records, 0.1)
    assert why_not_valid(records, share, 20.0, ()) == []
    assert share.lag_max_ms == pytest.approx(500)
