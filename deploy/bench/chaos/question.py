"""What clients of a chaos run ask: chat completions whose answers are known, because they are always the same."""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from deploy.bench.cluster_load import prompt_text
from router.text.tokenizer import TextCodec

PROMPT_TOKENS = (16, 60, 120, 240)  # and the chat template's
ANSWER_TOKENS = (8, 24, 48)
STOP_CHARS = 3  # of a stop string that is cut out of an answer


class Kind(StrEnum):
    """How tokens are chosen."""

    GREEDY = "greedy"
    SEEDED = "seeded"
    RULED = "ruled"
    """Seeded, with everything that changes logits: penalties, biases, bad words, and a shortest answer."""
    SCORED = "scored"
    """Seeded, with the log-probability of every token."""


SAMPLING: dict[Kind, dict[str, Any]] = {
    Kind.GREEDY: {"temperature": 0, "ignore_eos": True},
    Kind.SEEDED: {"temperature": 0.9, "top_p": 0.95, "top_k": 0},
    Kind.RULED: {
        "temperature": 0.9,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.5,
        "repetition_penalty": 1.2,
        "logit_bias": {"5": 3.0, "9": -100.0},
        "bad_words": ["a", "the"],
        "min_tokens": 6,
    },
    Kind.SCORED: {"temperature": 0.9, "logprobs": True, "top_logprobs": 2},
}


@dataclass(frozen=True, slots=True)
class Question:
    """A chat completion.

    Attributes:
        number: of all that are asked, from 0 on.
        kind: how its tokens are chosen.
        is_streamed: whether the answer comes as server-sent events, or whole.
        body: the JSON of the request, without `stream`.
    """

    number: int
    kind: Kind
    is_streamed: bool
    body: dict[str, Any]

    def sent(self) -> dict[str, Any]:
        """The JSON of the request."""
        stream = {"stream": True, "stream_options": {"include_usage": True}} if self.is_streamed else {}
        return {**self.body, **stream}

    def stopping_at(self, text: str) -> "Question":
        """The same with a stop string out of the middle of its answer; as it is when the answer is too short."""
        middle = len(text) // 2
        stop = text[middle : middle + STOP_CHARS]
        return replace(self, body={**self.body, "stop": [stop]}) if len(stop) == STOP_CHARS else self


def questions(model: str, codec: TextCodec, number: int) -> list[Question]:
    """So many questions, of all kinds and lengths, every other one streamed; the same ones every time.

    Args:
        model: the served name.
        codec: of that model.
        number: of questions.
    """
    return [_question(model, codec, index) for index in range(number)]


def wants_stop(question: Question) -> bool:
    """Whether a question is to end at a stop string; every third, so that they are of all kinds."""
    return question.number % 3 == 0


def _question(model: str, codec: TextCodec, number: int) -> Question:
    kind = list(Kind)[number // 2 % len(Kind)]
    prompt_tokens = PROMPT_TOKENS[number // 8 % len(PROMPT_TOKENS)]
    body = {
        "model": model,
        "messages": [{"role": "user", "content": prompt_text(codec, number, prompt_tokens)}],
        "max_tokens": ANSWER_TOKENS[(number // 8 + number) % len(ANSWER_TOKENS)],
        "seed": number,
        **SAMPLING[kind],
    }
    return Question(number, kind, number % 2 == 0, body)
