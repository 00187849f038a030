"""Heads and tokens of requests as text, for a store outside this process; nobody else reads it."""

import json
import struct
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from core.errors import BatonError
from core.request import GenerationRequest
from core.sampling import SamplingParams
from router.journal.head import RequestHead

TOKEN_CHARS = 8  # of a token id in hexadecimal: all have one length, so that a store can put them at their place


def tokens_to_text(token_ids: Sequence[int]) -> str:
    """Token ids, each of `TOKEN_CHARS` characters."""
    return struct.pack(f">{len(token_ids)}I", *token_ids).hex()


def tokens_from_text(text: str) -> tuple[int, ...]:
    """The inverse. Raises ValueError or struct.error when the text is something else."""
    return struct.unpack(f">{len(text) // TOKEN_CHARS}I", bytes.fromhex(text))


def head_to_text(head: RequestHead) -> str:
    """A JSON object."""
    request = head.request
    fields = {
        **{name: getattr(head, name) for name in _HEAD_FIELDS},
        "stops": head.stops,
        "rendering": dict(head.rendering),
        "request": {
            **{name: getattr(request, name) for name in _REQUEST_FIELDS},
            "prompt": tokens_to_text(request.prompt),
            "stop_token_ids": sorted(request.stop_token_ids),
            "sampling": asdict(request.sampling),
        },
    }
    return json.dumps(fields, separators=(",", ":"))


def head_from_text(text: str) -> RequestHead | None:
    """None when it is no head of this version: somebody else's text, or another version's."""
    try:
        fields = json.loads(text)
        return _head(fields)
    except (ValueError, TypeError, KeyError, AttributeError, struct.error, BatonError):
        return None


_HEAD_FIELDS = ("created_s", "deadline_s", "fingerprint", "is_kept")
_REQUEST_FIELDS = ("request_id", "max_tokens", "cache_salt", "tenant", "priority", "timeout_s", "name")


def _head(fields: dict[str, Any]) -> RequestHead:
    request = fields["request"]
    sampling = request["sampling"]
    sampling["logit_bias"] = tuple((token_id, bias) for token_id, bias in sampling["logit_bias"])
    sampling["bad_words"] = tuple(map(tuple, sampling["bad_words"]))
    return RequestHead(
        **{name: fields[name] for name in _HEAD_FIELDS},
        stops=tuple(fields["stops"]),
        rendering=fields["rendering"],
        request=GenerationRequest(
            **{name: request[name] for name in _REQUEST_FIELDS},
            prompt=tokens_from_text(request["prompt"]),
            stop_token_ids=frozenset(request["stop_token_ids"]),
            sampling=SamplingParams(**sampling),
        ),
    )
