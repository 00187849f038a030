"""What flips cost, worked out from what was measured; and whether the targets hold. No cluster."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deploy.bench.checks import at_least, at_most
from deploy.bench.roles.gaps import Gap, median_itl_s, worst_gap
from deploy.bench.stream_record import StreamRecord

FIRST_WORK_MS = 100.0
GAP_VS_ITL = 1.0
SPEEDUP_VS_RESTART = 10.0


@dataclass(frozen=True, slots=True)
class MeasuredFlip:
    """One change of one worker's role under load.

    Attributes:
        worker: name.
        to: role that it took.
        ordered_s: when that was ordered, on `time.perf_counter`.
        first_work_s: from the order to the beginning of the first step with work of the new role.
        settled_s: from the order until nothing of the old role was left.
        watched_s: from the order to the end of the time in which streams are looked at.
    """

    worker: str
    to: str
    ordered_s: float
    first_work_s: float
    settled_s: float
    watched_s: float

    def worst_gap(self, streams: Sequence[StreamRecord]) -> Gap | None:
        """Of the streams that ran when it was ordered. Which of them migrated no client can see, so all count."""
        return worst_gap(streams, self.ordered_s, self.ordered_s + self.watched_s)


def flip_row(flip: MeasuredFlip, streams: Sequence[StreamRecord]) -> dict[str, Any]:
    """One flip as JSON values; gaps are None when no stream ran."""
    gap = flip.worst_gap(streams)
    return {
        "worker": flip.worker,
        "to": flip.to,
        "first_work_ms": 1000 * flip.first_work_s,
        "settled_ms": 1000 * flip.settled_s,
        "longest_gap_ms": 1000 * gap.gap_s if gap else None,
        "longest_gap_vs_itl": gap.ratio if gap else None,
    }


def way_figures(
    flips: Sequence[MeasuredFlip],
    streams: Sequence[StreamRecord],
    prompts: Sequence[StreamRecord],
    num_recomputed: int,
) -> dict[str, Any]:
    """One way to change roles, measured under one load.

    Returns:
        `first_work_ms_p50` over all flips; `longest_gap_ms` and `longest_gap_vs_itl`, the worst of all flips, 0 when
        no stream ran; counts of requests.
    """
    rows = [flip_row(flip, streams) for flip in flips]
    return {
        "flips": rows,
        "first_work_ms_p50": statistics.median(row["first_work_ms"] for row in rows),
        "longest_gap_ms": max(row["longest_gap_ms"] or 0.0 for row in rows),
        "longest_gap_vs_itl": max(row["longest_gap_vs_itl"] or 0.0 for row in rows),
        "itl_ms_p50": 1000 * median_itl_s(streams),
        "num_requests": len(streams) + len(prompts),
        "requests_failed": num_failed([*streams, *prompts]),
        "tokens_recomputed": num_recomputed,
    }


def num_failed(records: Sequence[StreamRecord]) -> int:
    """Requests without a whole answer."""
    return sum(bool(record.failure) for record in records)


def num_changed(records: Mapping[int, StreamRecord], reference: Mapping[int, StreamRecord]) -> int:
    """Answers that are not those of the same requests undisturbed; failed ones are counted elsewhere."""
    return sum(
        record.token_ids != reference[number].token_ids for number, record in records.items() if not record.failure
    )


def flip_checks(live: Mapping[str, Any], restart: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The targets, from two results of `way_figures`, the first with `answers_changed` added."""
    speedup = restart["first_work_ms_p50"] / live["first_work_ms_p50"]
    return [
        at_most("first_work_ms_p50", live["first_work_ms_p50"], "ms", FIRST_WORK_MS),
        at_most("longest_gap_vs_itl", live["longest_gap_vs_itl"], "x", GAP_VS_ITL),
        at_least("flip_speedup_vs_restart", speedup, "x", SPEEDUP_VS_RESTART),
        at_most("requests_failed", live["requests_failed"], "requests", 0),
        at_most("tokens_recomputed", live["tokens_recomputed"], "tokens", 0),
        at_most("answers_changed", live["answers_changed"], "answers", 0),
    ]
