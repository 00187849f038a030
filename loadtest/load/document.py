"""What `baton load --json` writes, in the shape that `loadtest.report.document` describes."""

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from loadtest.load.record import RequestRecord
from loadtest.load.run import RunOutcome
from loadtest.load.settings import LoadSettings
from loadtest.load.summary import measured, summarize
from loadtest.load.validity import client_share, why_not_valid
from loadtest.report.document import Document, Run
from loadtest.report.series import series_of

DIGITS = 6  # of times of events: microseconds


def run_document(outcome: RunOutcome, settings: LoadSettings, *, with_records: bool) -> Run:
    """One run's figures.

    Args:
        outcome: of the run.
        settings: what was to be measured, and what counts as good.
        with_records: whether all its requests are in it, as `records`, with the times of all events.
    """
    records = measured(outcome.records, settings.warmup_requests, settings.warmup_s)
    client = client_share(records, outcome.cpu_share)
    reasons = why_not_valid(records, client, settings.max_lag_ms, outcome.faults)
    run = {
        "name": outcome.plan.name,
        "rate": outcome.plan.rate,
        "concurrency": outcome.plan.concurrency,
        "started_at": datetime.fromtimestamp(outcome.started_unix_s, UTC).isoformat(),
        "duration_s": outcome.duration_s,
        "num_warmup": len(outcome.records) - len(records),
        "valid": not reasons,
        "reasons": reasons,
        "client": dataclasses.asdict(client),
        "summary": dataclasses.asdict(summarize(records, settings.limits(), outcome.examples)),
        "faults": [dataclasses.asdict(fault) for fault in outcome.faults],
        "series": series_of(records),
    }
    return run | {"records": [_record(record) for record in outcome.records]} if with_records else run


def load_document(
    runs: Sequence[Run],
    settings: LoadSettings,
    *,
    url: str,
    model: str,
    given: Mapping[str, object],
    machine: Mapping[str, object],
) -> Document:
    """A whole load's.

    Args:
        runs: in order, at least one.
        settings: as of the runs.
        url: of the API that was asked.
        model: that was asked.
        given: flags and their values that differ from the defaults.
        machine: that the client ran on, described for people.
    """
    return {
        "url": url,
        "model": model,
        "started_at": runs[0]["started_at"],
        "valid": all(run["valid"] for run in runs),
        "settings": dict(given),
        "machine": dict(machine),
        "limits": dataclasses.asdict(settings.limits()),
        "runs": list(runs),
    }


def _record(record: RequestRecord) -> dict[str, Any]:
    return {**dataclasses.asdict(record), "chunk_s": [round(time_s, DIGITS) for time_s in record.chunk_s]}
