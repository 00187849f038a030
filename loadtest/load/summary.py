"""The figures of one run, out of its records. Pure: measures nothing itself."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from loadtest.load.distribution import MILLISECONDS, Distribution, distribution_ms
from loadtest.load.record import RequestRecord


@dataclass(frozen=True, slots=True)
class Limits:
    """What counts as good.

    Attributes:
        ttft_ms: longest time to the first token; None for any.
        tpot_ms: longest mean time per token after it; None for any.
    """

    ttft_ms: float | None = None
    tpot_ms: float | None = None


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """Requests that failed in one way: how many, and what was said of one."""

    count: int
    example: str


@dataclass(frozen=True, slots=True)
class Goodput:
    """Requests inside both limits.

    Attributes:
        requests_per_s: of them.
        share: of all that were sent; a failed one is outside.
    """

    requests_per_s: float
    share: float


@dataclass(frozen=True, slots=True)
class Summary:
    """Of the measured requests of a run. Distributions are of answered ones; None where nothing was to be measured.

    Attributes:
        requests: that were sent.
        answered: wholly.
        failed: the others.
        span_s: from when the first was sent to when the last one ended; rates are over this time.
        ttft_ms: to the first token.
        tpot_ms: mean time per token after the first, of answers of two or more.
        itl_ms: between two events with text, of all answers together.
        e2e_ms: to the end of the answer.
        lag_ms: of all sent: by how much the client was late.
        requests_per_s: answered.
        input_tokens_per_s: prompts of answered requests, as the server counted them.
        output_tokens_per_s: of answered requests.
        goodput: under the limits.
        prompt_tokens: of answered requests, as the server counted them.
        planned_prompt_tokens: of those that the server counted; None when the plan did not say of one.
        cached_tokens: of `prompt_tokens`, those that the server found in a cache.
        output_tokens: of answered requests.
        errors: by kind.
    """

    requests: int
    answered: int
    failed: int
    span_s: float
    ttft_ms: Distribution | None
    tpot_ms: Distribution | None
    itl_ms: Distribution | None
    e2e_ms: Distribution | None
    lag_ms: Distribution | None
    requests_per_s: float
    input_tokens_per_s: float
    output_tokens_per_s: float
    goodput: Goodput
    prompt_tokens: int
    planned_prompt_tokens: int | None
    cached_tokens: int
    output_tokens: int
    errors: Mapping[str, ErrorKind]


def measured(records: Sequence[RequestRecord], warmup_requests: int, warmup_s: float) -> list[RequestRecord]:
    """Those behind the warm-up: neither among the first ones nor due before its end."""
    return [record for record in records if record.number >= warmup_requests and record.due_s >= warmup_s]


def summarize(records: Sequence[RequestRecord], limits: Limits, examples: Mapping[str, str]) -> Summary:
    """The figures of requests that have all ended.

    Args:
        records: of the requests that are to be measured.
        limits: of goodput.
        examples: of each kind of failure.
    """
    answered = [record for record in records if record.is_answered]
    span_s = _span_s(records)
    prompt_tokens = sum(record.prompt_tokens or 0 for record in answered)
    output_tokens = sum(record.output_tokens for record in answered)
    good = sum(is_inside(record, limits) for record in answered)
    return Summary(
        requests=len(records),
        answered=len(answered),
        failed=len(records) - len(answered),
        span_s=span_s,
        ttft_ms=distribution_ms([time for record in answered if (time := record.ttft_s) is not None]),
        tpot_ms=distribution_ms([time for record in answered if (time := record.tpot_s) is not None]),
        itl_ms=distribution_ms(gaps_s(answered)),
        e2e_ms=distribution_ms([time for record in answered if (time := record.e2e_s) is not None]),
        lag_ms=distribution_ms([record.lag_s for record in records]),
        requests_per_s=_rate(len(answered), span_s),
        input_tokens_per_s=_rate(prompt_tokens, span_s),
        output_tokens_per_s=_rate(output_tokens, span_s),
        goodput=Goodput(_rate(good, span_s), good / len(records) if records else 0.0),
        prompt_tokens=prompt_tokens,
        planned_prompt_tokens=_planned_tokens([record for record in answered if record.prompt_tokens is not None]),
        cached_tokens=sum(record.cached_tokens for record in answered),
        output_tokens=output_tokens,
        errors=_errors(records, examples),
    )


def is_inside(record: RequestRecord, limits: Limits) -> bool:
    """Whether a request was answered inside both limits. An answer of one token has no TPOT and meets any."""
    if not record.is_answered:
        return False
    pairs = ((record.ttft_s, limits.ttft_ms), (record.tpot_s, limits.tpot_ms))
    return all(time is None or limit is None or time * MILLISECONDS <= limit for time, limit in pairs)


def _span_s(records: Sequence[RequestRecord]) -> float:
    ends = [record.ended_s for record in records if record.ended_s is not None]
    return max(ends) - min(record.sent_s for record in records) if ends else 0.0


def _rate(amount: int, span_s: float) -> float:
    return amount / span_s if span_s > 0 else 0.0


def gaps_s(records: Sequence[RequestRecord]) -> npt.NDArray[np.float64]:
    """Times between two events with text of one answer, of all answers together."""  # [num_gaps]
    return np.concatenate([np.zeros(0), *(np.diff(np.frombuffer(record.chunk_s)) for record in records)])


def _planned_tokens(records: Sequence[RequestRecord]) -> int | None:
    planned = [record.planned_prompt_tokens for record in records]
    return None if None in planned else sum(tokens or 0 for tokens in planned)


def _errors(records: Sequence[RequestRecord], examples: Mapping[str, str]) -> dict[str, ErrorKind]:
    counts = Counter(record.error for record in records if record.error is not None)
    return {kind: ErrorKind(count, examples.get(kind, "")) for kind, count in counts.most_common()}
