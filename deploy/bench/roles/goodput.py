"""Which requests met both limits, and how many of them a second. Arithmetic over records."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deploy.bench.checks import at_least, at_most
from deploy.bench.stream_record import StreamRecord

VS_BEST_FIXED = 1.2


@dataclass(frozen=True, slots=True)
class Slo:
    """Limits of a request: time to first token, and mean time per token after it."""

    ttft_s: float
    tpot_s: float

    def is_met(self, record: StreamRecord) -> bool:
        """Whether a request has a whole answer inside both."""
        if record.failure or not record.times_s:
            return False
        return record.ttft_s <= self.ttft_s and record.tpot_s <= self.tpot_s


def run_figures(records: Sequence[StreamRecord], slo: Slo, duration_s: float) -> dict[str, Any]:
    """One run of the load.

    Args:
        records: all its requests, at least one of which has an answer.
        slo: what counts.
        duration_s: in which they were sent.
    """
    answered = [record for record in records if not record.failure and record.times_s]
    num_met = sum(map(slo.is_met, records))
    return {
        "num_requests": len(records),
        "requests_failed": sum(bool(record.failure) for record in records),
        "requests_in_time": num_met,
        "goodput_per_s": num_met / duration_s,
        "ttft_ms_p50": 1000 * statistics.median(record.ttft_s for record in answered),
        "tpot_ms_p50": 1000 * statistics.median(record.tpot_s for record in answered),
    }


def swing_checks(runs: Mapping[str, Mapping[str, Any]], auto: str) -> list[dict[str, Any]]:
    """The targets, from results of `run_figures` with `role_changes` added.

    The goodput of the run named `auto` over the best of the others is 0 when there is none to compare with. Requests
    that failed count in all runs.
    """
    best_fixed = max(run["goodput_per_s"] for name, run in runs.items() if name != auto)
    ours = runs[auto]["goodput_per_s"]
    return [
        at_least("goodput_vs_best_fixed", ours / best_fixed if best_fixed else 0.0, "x", VS_BEST_FIXED),
        at_most("requests_failed", sum(run["requests_failed"] for run in runs.values()), "requests", 0),
        at_least("role_changes", runs[auto]["role_changes"], "changes", 1),
    ]
