"""Whether the figures of a run are the server's, or its client's own doing."""

from collections.abc import Sequence
from dataclasses import dataclass

from loadtest.load.distribution import distribution_ms
from loadtest.load.faults import FaultRecord
from loadtest.load.record import RequestRecord

MAX_CPU_SHARE = 0.9  # of one core: beyond it events wait for the client before they are seen


@dataclass(frozen=True, slots=True)
class ClientShare:
    """What the client itself was in a run.

    Attributes:
        cpu_share: of one core that its process used.
        lag_p99_ms: by how much requests were sent late.
        lag_max_ms: the latest one.
    """

    cpu_share: float
    lag_p99_ms: float
    lag_max_ms: float


def client_share(records: Sequence[RequestRecord], cpu_share: float) -> ClientShare:
    """Of the requests that are measured."""
    lag = distribution_ms([record.lag_s for record in records])
    return ClientShare(cpu_share, lag.p99 if lag else 0.0, lag.max if lag else 0.0)


def why_not_valid(
    records: Sequence[RequestRecord], client: ClientShare, max_lag_ms: float, faults: Sequence[FaultRecord]
) -> list[str]:
    """Reasons not to believe a run's figures, for people; none when it is valid.

    Args:
        records: of the requests that are measured.
        client: what it was in that time.
        max_lag_ms: the most that is allowed at p99.
        faults: what happened of those that were to happen.
    """
    reasons = []
    if not records:
        reasons.append("no request was measured: the run ended in its warm-up, or had nothing to send")
    if client.lag_p99_ms > max_lag_ms:
        reasons.append(f"requests were sent {client.lag_p99_ms:.1f} ms late at p99, more than {max_lag_ms:g} ms")
    if client.cpu_share > MAX_CPU_SHARE:
        reasons.append(f"the client used {client.cpu_share:.2f} of a core, more than {MAX_CPU_SHARE:g}")
    if num_held := sum(record.error == "max_open" for record in records):
        reasons.append(f"{num_held} request(s) were not sent, for --max-open connections were in use")
    reasons += [f"'{fault.what}' failed: {fault.error}" for fault in faults if fault.error is not None]
    return reasons
