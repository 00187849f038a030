"""What a run looks like while it goes, read from its records: costs nothing when nobody looks. No terminal."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from core.clock import Clock
from loadtest.load.distribution import Distribution, distribution_ms
from loadtest.load.record import RequestRecord

WINDOW_S = 10.0


@dataclass(frozen=True, slots=True)
class LiveFigures:
    """At one moment.

    Attributes:
        elapsed_s: since the run began.
        sent: requests so far.
        answered: of these, wholly.
        failed: of these.
        ttft_ms: of answers whose first token came in the last `WINDOW_S`; None when none did.
        tpot_ms: of answers that ended in that time, likewise.
        events_per_s: with text, in that time: normally a token each.
        lag_ms: of requests sent in that time; None when none was.
    """

    elapsed_s: float
    sent: int
    answered: int
    failed: int
    ttft_ms: Distribution | None
    tpot_ms: Distribution | None
    events_per_s: float
    lag_ms: Distribution | None


class LiveView:
    """Looks at the records of a run that goes on.

    Args:
        records: grow while it goes.
        clock: their time.
    """

    def __init__(self, records: Sequence[RequestRecord], clock: Clock) -> None:
        self._records = records
        self._clock = clock
        self._recent: list[RequestRecord] = []  # those under way, and those that ended in the window
        self._num_seen = 0
        self._old_failed = 0

    def look(self) -> LiveFigures:
        """The figures of now. Takes time in proportion to the requests of the window and those under way."""
        now_s = self._clock.now_s()
        since_s = now_s - WINDOW_S
        recent = self._recent_since(since_s)
        failed = self._old_failed + sum(record.error is not None for record in recent)
        under_way = sum(record.ended_s is None for record in recent)
        begun = [record for record in recent if record.chunk_s and record.chunk_s[0] >= since_s]
        ended = [record for record in recent if record.is_answered and (record.ended_s or 0.0) >= since_s]
        num_events = sum(len(record.chunk_s) - bisect_left(record.chunk_s, since_s) for record in recent)
        return LiveFigures(
            elapsed_s=now_s,
            sent=len(self._records),
            answered=len(self._records) - failed - under_way,
            failed=failed,
            ttft_ms=distribution_ms([record.chunk_s[0] - record.sent_s for record in begun]),
            tpot_ms=distribution_ms([time for record in ended if (time := record.tpot_s) is not None]),
            events_per_s=num_events / min(WINDOW_S, now_s) if now_s > 0 else 0.0,
            lag_ms=distribution_ms([record.lag_s for record in recent if record.sent_s >= since_s]),
        )

    def _recent_since(self, since_s: float) -> list[RequestRecord]:
        new = self._records[self._num_seen :]
        self._num_seen += len(new)
        known, self._recent = [*self._recent, *new], []
        for record in known:
            if record.ended_s is None or record.ended_s >= since_s:
                self._recent.append(record)
            else:
                self._old_failed += record.error is not None
        return self._recent
