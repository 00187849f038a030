"""Writes what the events of one streamed answer say into its record. Cuts nothing and waits for nothing."""

import json
from collections.abc import Sequence
from typing import Any

from loadtest.load.chunk_text import has_text, is_plain_text
from loadtest.load.record import RequestRecord

DONE = b"[DONE]"
MAX_KIND_CHARS = 64
MAX_EXAMPLE_CHARS = 500
UNREADABLE = (ValueError, AttributeError, TypeError, KeyError)  # what an event of another form raises


class AnswerReader:
    """Reads one answer.

    Args:
        record: gets what is read.
        keeps_text: whether `text` is asked for in the end.

    Attributes:
        example: of the failure, in the server's own words; empty while there is none.
    """

    __slots__ = ("_is_done", "_keeps_text", "_kept", "_record", "example")

    def __init__(self, record: RequestRecord, *, keeps_text: bool) -> None:
        self.example = ""
        self._record = record
        self._keeps_text = keeps_text
        self._kept: list[bytes] = []
        self._is_done = False

    def begin(self, status: int, now_s: float) -> None:
        """The head of the answer has come."""
        self._record.status, self._record.headers_s = status, now_s

    def take(self, events: Sequence[bytes], now_s: float) -> None:
        """Takes in the data of events that came at `now_s`."""
        chunk_s = self._record.chunk_s
        for data in events:
            if is_plain_text(data):
                chunk_s.append(now_s)
            elif data == DONE:
                self._is_done = True
            elif self._decoded_has_text(data):
                chunk_s.append(now_s)
            if self._keeps_text:
                self._kept.append(data)

    def end(self, now_s: float) -> None:
        """The body is complete: the answer is, too, or it has failed."""
        record = self._record
        if record.error is None and not (self._is_done or record.finish_reason):
            self.fail("cut_off", "the answer ended without a finish reason and without [DONE]", now_s)
        elif record.error is None and not record.chunk_s:
            self.fail("no_text", f"the answer has no text; finish reason {record.finish_reason}", now_s)
        self._close(now_s)

    def fail(self, kind: str, example: str, now_s: float) -> None:
        """The answer has failed and nothing more comes. The first failure counts; one after the end is none."""
        if self._record.ended_s is None:
            self._note_error(kind, example)
            self._close(now_s)

    @property
    def is_complete(self) -> bool:
        """Whether the last event came, whatever becomes of the connection."""
        return self._is_done and self._record.error is None

    def text(self) -> str:
        """The answer, as the server is to be shown it in the next turn; of a reader that keeps it.

        Events that had not to be decoded before are now. If one cannot be, the answer has failed and has no text.
        """
        try:
            return "".join(map(_content, self._kept))
        except UNREADABLE as error:
            self._note_error("bad_event", repr(error))
            return ""

    def _close(self, now_s: float) -> None:
        if not self._record.output_tokens:
            self._record.output_tokens = len(self._record.chunk_s)
        self._record.ended_s = now_s

    def _decoded_has_text(self, data: bytes) -> bool:
        try:
            return self._read_chunk(json.loads(data))
        except UNREADABLE as error:
            self._note_error("bad_event", f"{error!r} in {data[:200]!r}")
            return False

    def _read_chunk(self, chunk: dict[str, Any]) -> bool:
        if error := error_of(chunk):
            self._note_error(*error)
            return False
        if usage := chunk.get("usage"):
            self._read_usage(usage)
        choices = chunk.get("choices") or ()
        for choice in choices:
            self._record.finish_reason = choice.get("finish_reason") or self._record.finish_reason
        return any(has_text(choice.get("delta") or {}) for choice in choices)

    def _read_usage(self, usage: dict[str, Any]) -> None:
        self._record.prompt_tokens = int(usage["prompt_tokens"])
        self._record.output_tokens = int(usage.get("completion_tokens") or 0)
        self._record.cached_tokens = int((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0)

    def _note_error(self, kind: str, example: str) -> None:
        if self._record.error is None:
            self._record.error, self.example = kind[:MAX_KIND_CHARS], example[:MAX_EXAMPLE_CHARS]


def _content(data: bytes) -> str:
    choices = () if data == DONE else json.loads(data).get("choices") or ()
    return "".join((choice.get("delta") or {}).get("content") or "" for choice in choices)


def error_of(document: dict[str, Any]) -> tuple[str, str] | None:
    """Kind and message of an error document of OpenAI, vLLM, SGLang or Baton; None when it is none.

    The kind is the `code` where that is a word, else the `type`, else `error`.
    """
    error = document if document.get("object") == "error" else document.get("error")
    if not error:
        return None
    if not isinstance(error, dict):
        return "error", str(error)
    words = (word for word in (error.get("code"), error.get("type")) if isinstance(word, str) and word)
    return next(words, "error"), str(error.get("message") or error)
