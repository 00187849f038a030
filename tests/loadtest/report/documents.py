"""Documents as a load writes them, small."""

from array import array
from typing import Any

from loadtest.load.record import RequestRecord
from loadtest.report.series import series_of

TIMES = {"mean": 20.0, "p50": 18.25, "p90": 30.0, "p99": 41.0, "max": 42.0}


def answered(number: int, sent_s: float, chunk_s: list[float], *, output_tokens: int | None = None) -> RequestRecord:
    return RequestRecord(
        number=number,
        conversation=number,
        turn=0,
        due_s=sent_s,
        sent_s=sent_s,
        chunk_s=array("d", chunk_s),
        ended_s=chunk_s[-1] if chunk_s else sent_s,
        output_tokens=len(chunk_s) if output_tokens is None else output_tokens,
    )


def failed(number: int, sent_s: float, error: str = "http_429") -> RequestRecord:
    return RequestRecord(number, number, 0, sent_s, sent_s, ended_s=sent_s + 0.01, error=error)


def run_of(records: list[RequestRecord], **changes: Any) -> dict[str, Any]:  # noqa: ANN401 - any part
    num_failed = sum(record.error is not None for record in records)
    summary = {
        "requests": len(records), "answered": len(records) - num_failed, "failed": num_failed,
        "ttft_ms": TIMES, "tpot_ms": None, "itl_ms": TIMES, "e2e_ms": TIMES, "lag_ms": TIMES,
        "requests_per_s": 1.5, "input_tokens_per_s": 700.0, "output_tokens_per_s": 90.0,
        "goodput": {"requests_per_s": 1.25, "share": 0.75},
        "prompt_tokens": 330, "planned_prompt_tokens": 300, "cached_tokens": 33, "output_tokens": 40,
        "errors": {},
    }  # fmt: skip
    run = {
        "name": "2 requests/s", "rate": 2.0, "concurrency": None, "duration_s": 3.0, "valid": True, "reasons": [],
        "client": {"cpu_share": 0.125, "lag_p99_ms": 1.5, "lag_max_ms": 2.0}, "summary": summary, "faults": [],
        "series": series_of(records),
    }  # fmt: skip
    return run | changes


def document_of(*runs: dict[str, Any]) -> dict[str, Any]:
    return {
        "url": "http://127.0.0.1:8000/v1", "model": "demo", "started_at": "2026-11-22T21:00:00+00:00",
        "settings": {"--rate": "2"}, "machine": {"cores": 2}, "limits": {"ttft_ms": 100.0, "tpot_ms": None},
        "checks": [], "runs": list(runs),
    }  # fmt: skip
