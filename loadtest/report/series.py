"""Of every request the few numbers that a report draws, in columns: a fraction of the records' size."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from loadtest.load.distribution import MILLISECONDS
from loadtest.load.record import RequestRecord
from loadtest.load.summary import gaps_s

NUM_QUANTILES = 1001  # of gaps between tokens, of which there are too many to keep: p99.9 can be read off


def series_of(records: Sequence[RequestRecord]) -> dict[str, Any]:
    """Columns of a run; numbers of one request stand at one index. In the order in which requests were begun.

    Returns:
        `sent_s`, `ttft_ms`, `tpot_ms`, `e2e_ms`, `error`: one entry per request, None where there is none;
        `tokens_per_s`: of each second since the load began, the events with text that came in it, weighted so that an
        answer's make up its tokens, also those of an answer that broke off; `itl_ms`: quantiles of all gaps between
        events of whole answers, evenly spaced from the least to the largest, empty when there is no gap.
    """
    return {
        "sent_s": [_rounded(record.sent_s) for record in records],
        "ttft_ms": [_milliseconds(record.ttft_s) for record in records],
        "tpot_ms": [_milliseconds(record.tpot_s if record.is_answered else None) for record in records],
        "e2e_ms": [_milliseconds(record.e2e_s) for record in records],
        "error": [record.error for record in records],
        "tokens_per_s": _tokens_per_second([record for record in records if record.chunk_s]),
        "itl_ms": _quantiles_ms(gaps_s([record for record in records if record.is_answered])),
    }


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else _rounded(seconds * MILLISECONDS)


def _rounded(number: float) -> float:
    return round(number, 4)


def _tokens_per_second(records: Sequence[RequestRecord]) -> list[float]:
    if not records:
        return []
    num_seconds = int(max(record.chunk_s[-1] for record in records)) + 1
    tokens = np.zeros(num_seconds)
    for record in records:
        seconds = np.frombuffer(record.chunk_s).astype(np.int64)
        tokens += np.bincount(seconds, minlength=num_seconds) * (record.output_tokens / len(seconds))
    return [round(number, 2) for number in tokens.tolist()]


def _quantiles_ms(seconds: npt.NDArray[np.float64]) -> list[float]:
    if not len(seconds):
        return []
    quantiles = np.quantile(seconds * MILLISECONDS, np.linspace(0, 1, NUM_QUANTILES))
    return [round(number, 4) for number in quantiles.tolist()]
