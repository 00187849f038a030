"""One line for each call of the API. It has counts, times and names; never text, tokens or keys."""

import logging

from core.logs import with_fields
from router.observe.call import Call

logger = logging.getLogger("baton.access")


def log_call(call: Call, duration_s: float) -> None:
    """Writes the line of a call that has ended and took so many seconds; the request's id is among its tags."""
    if not logger.isEnabledFor(logging.INFO):
        return
    outcome, code = call.outcome
    fields: dict[str, object] = {
        "api": call.api,
        "method": call.method,
        "outcome": str(outcome),
        "code": code,
        "duration_ms": _milliseconds(duration_s),
    }
    if (times := call.times) is not None:
        fields["tenant"] = times.tenant
        fields["prompt_tokens"] = times.num_prompt_tokens
        fields["cached_tokens"] = times.num_cached_tokens
        fields["answer_tokens"] = times.num_tokens
        fields["attempts"] = len(times.attempts)
        if times.ttft_s is not None:
            fields["ttft_ms"] = _milliseconds(times.ttft_s)
    words = " ".join(f"{name}={value}" for name, value in fields.items() if name not in {"api", "method"})
    logger.info("%s %s", call.method, words, extra=with_fields(fields))


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 1)
