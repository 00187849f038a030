"""Whether a request would be served too late, and what its client is told then. Pure arithmetic."""

import math

from core.errors import OverloadedError
from router.admission.outlook import Outlook
from router.dispatch.placement import WAITING_SHARE

REASONS = ("ttft", "decode_places", "waiting")
"""Why requests are refused: prompts that wait, sequences that wait for a place, or too many requests of a tenant."""


def too_late(outlook: Outlook, limit_s: float) -> OverloadedError | None:
    """Why a request with this outlook is not to be accepted; None when it is.

    One that is late by itself is accepted: only waiting for others for more than a share of its own time is too long.

    Args:
        outlook: what it is to expect.
        limit_s: seconds in which its first token must come and its sequence have a place.
    """
    if outlook.ready_s <= limit_s:
        return None
    bearable_s = max(limit_s, (1 + WAITING_SHARE) * outlook.alone_s())
    excess_s = outlook.ready_s - bearable_s
    if excess_s <= 0:
        return None
    retry_after_s = max(1, math.ceil(excess_s))
    if outlook.prompt_s >= outlook.place_s:
        reason, late = "ttft", f"the prompt would be computed in {outlook.prompt_s:.3g} s because of those before it"
    else:
        reason, late = "decode_places", f"no worker has a place for the answer in the next {outlook.place_s:.3g} s"
    return OverloadedError(
        f"{late}; at most {bearable_s:.3g} s are accepted, by --admit-ttft-ms, --request-timeout-s and the request's "
        f"own timeout: try again in {retry_after_s} s",
        retry_after_s=retry_after_s,
        reason=reason,
    )
