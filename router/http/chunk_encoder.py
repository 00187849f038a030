"""Encoding one answer's chunks as server-sent events. Everything that stays the same is encoded once per answer.

Each event has an id, which says how far the stream has come with it: see `router.http.event_id`.
"""

import json
from json.encoder import encode_basestring

from core.request import FinishReason
from router.http.chat_response import ChoiceLogprobs, Usage
from router.http.event_id import Stage

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
# Line ends to `str.splitlines`, which some clients cut events with, though not to the SSE standard.
_LINE_ENDS = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}


class ChunkEncoder:
    """Encodes the chunks of one answer in OpenAI's `chat.completion.chunk` shape.

    Attributes:
        include_usage: whether chunks carry `usage`, null until the last one, as OpenAI does when asked for it.
        has_event_ids: whether there are lines with ids.
    """

    __slots__ = ("_choice_head", "_head", "_id_head", "_open_tail", "has_event_ids", "include_usage")

    def __init__(
        self, completion_id: str, created_s: int, model: str, *, include_usage: bool, has_event_ids: bool = True
    ) -> None:
        head = {"id": completion_id, "object": "chat.completion.chunk", "created": created_s, "model": model}
        self._id_head = f"id: {completion_id}:"
        self._head = f'data: {_encode(head)[:-1]},"choices":['
        self._choice_head = self._head + '{"index":0,"delta":{'
        self.include_usage = include_usage
        self.has_event_ids = has_event_ids
        self._open_tail = self._tail(None, None, None)

    def text(
        self,
        text: str,
        num_tokens: int,
        *,
        first: bool = False,
        finish_reason: FinishReason | None = None,
        logprobs: ChoiceLogprobs | None = None,
        usage: Usage | None = None,
    ) -> bytes:
        """A chunk of the answer; the `first` one names the role, the last one says why it ended.

        `num_tokens` of the answer have been shown with it, or are held because they give no text yet.
        """
        event_id = self._id(num_tokens, Stage.TEXT if finish_reason is None else Stage.FINISH)
        role = '"role":"assistant",' if first else ""
        is_open = finish_reason is None and logprobs is None and usage is None  # as most are
        tail = self._open_tail if is_open else self._tail(finish_reason, logprobs, usage)
        return f'{event_id}{self._choice_head}{role}"content":{_on_one_line(encode_basestring(text))}{tail}'.encode()

    def usage(self, usage: Usage) -> bytes:
        """The chunk without choices that ends a stream whose client asked for the token counts."""
        event_id = self._id(usage.completion_tokens, Stage.USAGE)
        return f"{event_id}{self._head}]{self._usage(usage)}}}\n\n".encode()

    def done(self, num_tokens: int) -> bytes:
        """The event that says that the stream is complete; the answer has `num_tokens`."""
        return f"{self._id(num_tokens, Stage.DONE)}data: [DONE]\n\n".encode()

    def _id(self, num_tokens: int, stage: Stage) -> str:
        return f"{self._id_head}{num_tokens}:{stage}\n" if self.has_event_ids else ""

    def _tail(self, reason: FinishReason | None, logprobs: ChoiceLogprobs | None, usage: Usage | None) -> str:
        """What follows the text of a chunk."""
        finish = "null" if reason is None else f'"{reason}"'
        scores = "null" if logprobs is None else _on_one_line(_encode(logprobs.model_dump()))
        return f'}},"logprobs":{scores},"finish_reason":{finish}}}]{self._usage(usage)}}}\n\n'

    def _usage(self, usage: Usage | None) -> str:
        if usage is not None:
            return f',"usage":{usage.model_dump_json()}'
        return ',"usage":null' if self.include_usage else ""


def _on_one_line(encoded: str) -> str:
    """The same JSON, so that no client takes it for several lines."""
    return encoded if encoded.isascii() else encoded.translate(_LINE_ENDS)


def error_event(document: bytes) -> bytes:
    """The event that ends a stream which failed: OpenAI's error document, without `[DONE]`, as vLLM does.

    It has no id: a client that reconnects names the event before it.
    """
    return b"data: " + document + b"\n\n"
