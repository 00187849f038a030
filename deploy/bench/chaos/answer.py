"""An answer as its client has it in the end, and how it differs from what it should be."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# Log-probabilities are shown as computed: their last digits depend on what is computed beside them.
LOGPROB_TOLERANCE = 1e-3

Logprobs = tuple[tuple[str, float], ...]
"""Of each token of an answer: its text and the logarithm of its probability."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A chat completion that has ended, whole or put together from the events of its stream.

    Attributes:
        text: all of it.
        finish_reason: why it ended.
        num_prompt_tokens, num_tokens, num_cached_tokens: as `usage` says.
        logprobs: empty unless asked for.
    """

    text: str
    finish_reason: str
    num_prompt_tokens: int
    num_tokens: int
    num_cached_tokens: int
    logprobs: Logprobs = ()

    def difference(self, expected: "Answer") -> str:
        """What is wrong with it, in words; empty when it is what was expected.

        How much of a prompt is found in a cache depends on what was asked before; all of it never is.
        """
        for name in ("text", "finish_reason", "num_prompt_tokens", "num_tokens"):
            ours, theirs = getattr(self, name), getattr(expected, name)
            if ours != theirs:
                return f"{name} is {ours!r}, expected {theirs!r}"
        if not 0 <= self.num_cached_tokens < self.num_prompt_tokens:
            return f"{self.num_cached_tokens} of {self.num_prompt_tokens} prompt tokens are said to be cached"
        return _logprobs_difference(self.logprobs, expected.logprobs)


def whole_answer(document: dict[str, Any]) -> Answer:
    """The answer in a `chat.completion` document."""
    (choice,) = document["choices"]
    return _answer(choice["message"]["content"], choice["finish_reason"], document["usage"], logprobs_of(choice))


class StreamedAnswer:
    """The chunks of one stream, over all connections that they came on.

    Attributes:
        text: so far.
    """

    def __init__(self) -> None:
        self.text = ""
        self._finish_reason = ""
        self._usage: dict[str, Any] = {}
        self._logprobs: list[tuple[str, float]] = []

    def add(self, chunk: dict[str, Any]) -> bool:
        """Takes in a `chat.completion.chunk`; whether it has text."""
        text = ""
        for choice in chunk["choices"]:
            text += choice["delta"].get("content") or ""
            self._logprobs += logprobs_of(choice)
            self._finish_reason = choice["finish_reason"] or self._finish_reason
        self.text += text
        self._usage = chunk.get("usage") or self._usage
        return bool(text)

    def ended(self) -> Answer:
        """The answer after `[DONE]`. One that lacks its end is an answer too, and a wrong one."""
        return _answer(self.text, self._finish_reason, self._usage, self._logprobs)


def logprobs_of(choice: dict[str, Any]) -> Logprobs:
    """Those of one choice, of a chunk or of a document."""
    scores = choice["logprobs"] or {"content": []}
    return tuple((entry["token"], entry["logprob"]) for entry in scores["content"])


def _answer(text: str, finish_reason: str, usage: dict[str, Any], logprobs: Sequence[tuple[str, float]]) -> Answer:
    cached = usage.get("prompt_tokens_details", {}).get("cached_tokens", 0)
    counts = (usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0), cached)
    return Answer(text, finish_reason, *counts, tuple(logprobs))


def _logprobs_difference(ours: Logprobs, theirs: Logprobs) -> str:
    if [token for token, _ in ours] != [token for token, _ in theirs]:
        return f"log-probabilities are of other tokens: {ours}, expected {theirs}"
    pairs = zip(ours, theirs, strict=True)
    off = [(mine, other) for mine, other in pairs if abs(mine[1] - other[1]) > LOGPROB_TOLERANCE]
    return f"log-probabilities differ: {off[0][0]}, expected {off[0][1]}" if off else ""
