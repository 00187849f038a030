"""Recorded conversations in the form of ShareGPT's, or of OpenAI's messages, as plans. What was asked is asked again.

    [{"conversations": [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}]}]
    [{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}]

The recorded answers say only how long answers are to be: between turns stands what the server answered.
"""

import itertools
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import ConfigError
from loadtest.workloads.draws import Draws
from loadtest.workloads.plan import ConversationPlan, MessagePlan, Piece, TurnPlan, piece_key

ASSISTANT = "assistant"
ROLES = {
    "human": "user", "user": "user", "system": "system",
    "gpt": ASSISTANT, "assistant": ASSISTANT, "chatgpt": ASSISTANT, "bing": ASSISTANT, "bard": ASSISTANT,
}  # fmt: skip
FORMS = (("conversations", "from", "value"), ("messages", "role", "content"))

Spoken = Sequence[tuple[str, str]]
"""Roles and texts of a conversation, in order."""

CountTokens = Callable[[str], int]


@dataclass(frozen=True, slots=True)
class RecordedConversations:
    """A data set, ready to be asked.

    Attributes:
        conversations: each with at least one answered message.
        is_multi_turn: whether all their turns are asked, or the first only.
        count: of tokens of a text.
        answers: lengths of answers; None for the recorded ones.
        thinking: seconds between an answer and the next turn.
        seed: of the order, and of what is drawn.
    """

    conversations: Sequence[Spoken]
    is_multi_turn: bool
    count: CountTokens
    answers: Draws | None
    thinking: Draws
    seed: int

    def plans_at(self, times: Iterator[float | None]) -> Iterator[ConversationPlan]:
        """One per time, in random order, each once. Only texts that are asked are counted, as they are taken."""
        num_turns = None if self.is_multi_turn else 1
        random_numbers = random.Random(f"order {self.seed}")  # noqa: S311 - a load, no secret
        order = random_numbers.sample(self.conversations, len(self.conversations))
        return (
            ConversationPlan(at_s, tuple(itertools.islice(self._turns(conversation, random_numbers), num_turns)))
            for conversation, at_s in zip(order, times, strict=False)
        )

    def _turns(self, conversation: Spoken, random_numbers: random.Random) -> Iterator[TurnPlan]:
        messages: list[MessagePlan] = []
        think_s = 0.0
        for role, text in conversation:
            if role != ASSISTANT:
                messages.append(
                    MessagePlan(role, (Piece(piece_key(text), self._length(text), text, is_shared=True),))
                )
            elif messages:
                length = self._length(text) if self.answers is None else self.answers.count(random_numbers)
                yield TurnPlan(tuple(messages), length, think_s)
                messages, think_s = [], self.thinking.number(random_numbers)

    def _length(self, text: str) -> int:
        return max(1, self.count(text))


def read_conversations(path: Path) -> list[Spoken]:
    """The conversations of a file in which somebody was answered; others are left out.

    Raises:
        ConfigError: it cannot be read, has another form, or has no such conversation; says where.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--dataset {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"--dataset {path} is no JSON ({error}); pass a list of conversations") from error
    if not isinstance(entries, list):
        raise ConfigError(f"--dataset {path} is no list; pass a list of conversations")
    conversations = [_spoken(entry, f"{path}, entry {number}") for number, entry in enumerate(entries)]
    answered = [conversation for conversation in conversations if _is_answered(conversation)]
    if not answered:
        raise ConfigError(
            f"--dataset {path} has no conversation with an answer, of {len(entries)}; pass another file"
        )
    return answered


def _spoken(entry: Any, where: str) -> Spoken:  # noqa: ANN401 - whatever a JSON file has
    for name, role, text in FORMS:
        if isinstance(entry, dict) and isinstance(entry.get(name), list):
            return [_message(message, role, text, where) for message in entry[name]]
    raise ConfigError(f"{where} has neither a list of `conversations` nor of `messages`")


def _message(message: Any, role: str, text: str, where: str) -> tuple[str, str]:  # noqa: ANN401 - as above
    try:
        spoken = ROLES[message[role]], message[text]
    except (KeyError, TypeError) as error:
        raise ConfigError(
            f"{where} has a message without `{role}` and `{text}`, or of an unknown role ({error}); roles are "
            f"{', '.join(ROLES)}"
        ) from error
    if not isinstance(spoken[1], str):
        raise ConfigError(f"{where} has a message whose `{text}` is no text; leave the entry out")
    return spoken[0], _whole_characters(spoken[1])


def _whole_characters(text: str) -> str:
    """The text with surrogate pairs put together, and a mark for halves, which neither tokenizers nor HTTP take."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _is_answered(conversation: Spoken) -> bool:
    roles = [role for role, _ in conversation]
    return ASSISTANT in roles and any(role != ASSISTANT for role in roles[: _last(roles, ASSISTANT)])


def _last(roles: Sequence[str], role: str) -> int:
    return len(roles) - 1 - roles[::-1].index(role)
