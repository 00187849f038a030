"""Words for plans: prompts that have the planned number of tokens, and share what they are planned to share.

A piece is a few words that spell its key, which no other piece has, and then a stretch of one long random text that
is made once. So a prompt of ten thousand tokens is a copy of some bytes, and pieces of one key begin alike.
"""

import itertools
import math
import random
from collections.abc import Iterator, Sequence

import xxhash

from loadtest.load.conversation import Conversation, Message, Turn
from loadtest.workloads.plan import ConversationPlan, MessagePlan, Piece, TurnPlan

RIVER_WORDS = 1 << 15
KEY_BITS = 64


class Writer:
    """Text of plans.

    Args:
        words: to make prompts of; all different, without spaces.
        seed: another one says everything in other words.
    """

    def __init__(self, words: Sequence[str], seed: str) -> None:
        self._words = words
        self._seed = xxhash.xxh3_64_intdigest(seed.encode())
        self._num_spelled = math.ceil(KEY_BITS / math.log2(len(words)))
        river = random.Random(f"words {seed}").choices(words, k=RIVER_WORDS)  # noqa: S311 - a load, no secret
        twice = [*river, *river]
        self._river = " ".join(twice) + " "
        self._starts = [0, *itertools.accumulate(len(word) + 1 for word in twice)]

    def conversations(self, plans: Iterator[ConversationPlan]) -> Iterator[Conversation]:
        """Each plan with its words, when it is asked for."""
        return (Conversation(plan.at_s, tuple(map(self._turn, plan.turns))) for plan in plans)

    def _turn(self, plan: TurnPlan) -> Turn:
        messages = tuple(Message(message.role, self.content(message)) for message in plan.messages)
        return Turn(messages, plan.answer_tokens, plan.num_tokens, plan.think_s)

    def content(self, message: MessagePlan) -> str:
        """Text of a message."""
        return " ".join(map(self.text, message.pieces))

    def text(self, piece: Piece) -> str:
        """What a piece says: `num_tokens` words, or what was recorded."""
        if piece.text is not None:
            return piece.text
        name = xxhash.xxh3_64_intdigest(piece.key.to_bytes(KEY_BITS // 8, "little"), self._seed)
        spelled = self._spelled(name)[: piece.num_tokens]
        num_left = piece.num_tokens - len(spelled)
        return " ".join((*spelled, *self._stretches(name % RIVER_WORDS, num_left)))

    def _spelled(self, number: int) -> list[str]:
        words = []
        for _ in range(self._num_spelled):
            number, digit = divmod(number, len(self._words))
            words.append(self._words[digit])
        return words

    def _stretches(self, start: int, num_words: int) -> Iterator[str]:
        """The words of the river from `start` on; it flows in a circle.

        starts:   0 ... start ......... RIVER_WORDS ... start + num_words ... 2 RIVER_WORDS
        """
        while num_words > 0:
            length = min(num_words, RIVER_WORDS)
            yield self._river[self._starts[start] : self._starts[start + length] - 1]
            num_words -= length
