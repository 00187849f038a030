"""What became of one request of a load, as its client saw it. Not what follows from many: that is `summary`'s."""

from array import array
from dataclasses import dataclass, field


@dataclass(slots=True)
class RequestRecord:
    """Times are seconds since the load began, by the client's monotonic clock.

    Attributes:
        number: in the order in which requests were begun, from 0.
        conversation: number of its conversation, from 0.
        turn: number of its turn, from 0.
        due_s: when it was to be sent: by the schedule, or when the answer that it waited for and a pause had ended.
        sent_s: when its client set out to send it: before a connection is opened, where none is free for it, and else
            when it was handed to the kernel. So opening connections is the server's time, not lag.
        headers_s: when the head of the answer came; None when it did not.
        chunk_s: when each event with text came; the first is the first token's.
        ended_s: when the answer was complete, or failed.
        planned_prompt_tokens: of all messages, as the workload and the answers before say; None when nobody counted.
        prompt_tokens: as the server counted them; None when it did not say.
        cached_tokens: of these, found in a cache, as the server says; 0 when it does not.
        output_tokens: as the server counted them; the number of events with text when it did not say.
        status: of HTTP; None when no head came.
        error: kind of failure: `http_429` and the like, `connect`, `max_open` (the client may not have another
            connection), `timeout`, `cut_off`, `bad_http`, `bad_event`, `no_stream` (a body that is no stream
            of events), `no_text`, or the `code` or `type` of an error in the stream; None when it succeeded.
        finish_reason: as the server says.
    """

    number: int
    conversation: int
    turn: int
    due_s: float
    sent_s: float
    headers_s: float | None = None
    chunk_s: "array[float]" = field(default_factory=lambda: array("d"))
    ended_s: float | None = None
    planned_prompt_tokens: int | None = None
    prompt_tokens: int | None = None
    cached_tokens: int = 0
    output_tokens: int = 0
    status: int | None = None
    error: str | None = None
    finish_reason: str | None = None

    @property
    def is_answered(self) -> bool:
        """Whether the whole answer came."""
        return self.ended_s is not None and self.error is None

    @property
    def ttft_s(self) -> float | None:
        """From setting out to send the request to its first token."""
        return self.chunk_s[0] - self.sent_s if self.chunk_s else None

    @property
    def e2e_s(self) -> float | None:
        """From setting out to send the request to the end of its answer, if that came."""
        return self.ended_s - self.sent_s if self.ended_s is not None and self.error is None else None

    @property
    def tpot_s(self) -> float | None:
        """Mean time per token after the first, of an answer of two or more."""
        if len(self.chunk_s) == 0 or self.output_tokens < 2:  # noqa: PLR2004 - the first token and another
            return None
        return (self.chunk_s[-1] - self.chunk_s[0]) / (self.output_tokens - 1)

    @property
    def lag_s(self) -> float:
        """By how much the client was behind its schedule."""
        return self.sent_s - self.due_s
