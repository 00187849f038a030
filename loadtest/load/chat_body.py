"""Bodies of chat requests. Everything that stays the same is encoded once per load."""

import json
from collections.abc import Sequence
from typing import Any

from core.errors import ConfigError
from loadtest.load.conversation import Message

MAX_TOKENS_FIELDS = ("max_tokens", "max_completion_tokens")
OWN_FIELDS = frozenset({"model", "messages", "stream", "stream_options", *MAX_TOKENS_FIELDS})

# In ASCII: a server may cut an answer between the halves of a surrogate pair, which only escapes put together again.
_encode = json.JSONEncoder(separators=(",", ":")).encode


class ChatBodies:
    """Encodes the requests of one load.

    Args:
        model: as the server names it.
        max_tokens_field: what it calls the length of an answer.
        fields: further ones of every request, such as `temperature`.
    """

    def __init__(self, model: str, max_tokens_field: str, fields: dict[str, Any]) -> None:
        always = {"model": model, "stream": True, "stream_options": {"include_usage": True}, **fields}
        self._begin = f'{_encode(always)[:-1]},"{max_tokens_field}":'

    def encode(self, messages: Sequence[Message], answer_tokens: int) -> bytes:
        """The body that asks for the next answer of a conversation, streamed and with token counts at its end."""
        shown = [{"role": message.role, "content": message.content} for message in messages]
        return f'{self._begin}{answer_tokens},"messages":{_encode(shown)}}}'.encode()


def parse_extra_body(text: str) -> dict[str, Any]:
    """Fields from a JSON object.

    Raises:
        ConfigError: it is none, or has a field that the load itself sets.
    """
    try:
        fields = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"--extra-body {text!r} is no JSON: {error}") from error
    if not isinstance(fields, dict):
        raise ConfigError(f"--extra-body {text!r} is no JSON object; write it like '{{\"top_k\": 1}}'")
    if own := OWN_FIELDS & fields.keys():
        raise ConfigError(f"--extra-body sets {', '.join(sorted(own))}, which the load itself does; leave it out")
    return fields
