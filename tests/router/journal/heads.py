"""Requests as a journal keeps them."""

from dataclasses import replace
from typing import Any

from core.request import GenerationRequest
from core.sampling import SamplingParams
from router.journal.head import RequestHead
from router.journal.store import RequestUpdate
from tests.byte_tokenizer import BYTE_EOS

REQUEST_ID = "0123456789abcdef" * 2


def head_of(request_id: str = REQUEST_ID, tenant: str = "", **changes: Any) -> RequestHead:  # noqa: ANN401 - any field
    """A request whose answer ends with the end-of-sequence token, at the latest after 100 tokens."""
    request = GenerationRequest(request_id, (1, 2, 3), 100, SamplingParams(seed=7), frozenset({BYTE_EOS}))
    head = RequestHead(replace(request, tenant=tenant), (), created_s=1000.0, deadline_s=1600.0, fingerprint="f")
    return replace(head, **changes)


def update_of(head: RequestHead, term: int = 1, **changes: Any) -> RequestUpdate:  # noqa: ANN401 - any field
    """The first that a store hears of a request."""
    update = RequestUpdate(
        head,
        is_new=True,
        term=term,
        first=0,
        token_ids=(),
        num_cached_tokens=0,
        is_running=True,
        keep_s=600.0,
    )
    return replace(update, **changes)


def more(update: RequestUpdate, first: int, *token_ids: int, **changes: Any) -> RequestUpdate:  # noqa: ANN401
    """What it hears later."""
    return replace(update, is_new=False, first=first, token_ids=token_ids, **changes)
