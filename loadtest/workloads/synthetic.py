"""Conversations of lengths that are drawn, with beginnings that they share and further turns. Without end."""

import itertools
import random
from collections.abc import Iterator, Sequence

from loadtest.workloads.plan import ConversationPlan, Piece, TurnPlan, piece_key, user_message
from loadtest.workloads.settings import DEFAULT_ZIPF, WorkloadSettings


def synthetic_plans(settings: WorkloadSettings, times: Iterator[float | None]) -> Iterator[ConversationPlan]:
    """One conversation per time; all else depends on the settings alone, so it is the same at any rate.

    What takes long, as that of many beginnings, is done before this returns, and so before a load begins.

    Args:
        settings: lengths, shared beginnings and turns.
        times: of their first turns.
    """
    turns = Turns(settings)
    beginnings = _shared_beginnings(settings)
    return (ConversationPlan(at_s, tuple(turns.of(number, next(beginnings)))) for number, at_s in enumerate(times))


class Turns:
    """Turns of one conversation after the other, as settings have them drawn."""

    def __init__(self, settings: WorkloadSettings) -> None:
        self._random_numbers = random.Random(f"lengths {settings.seed}")  # noqa: S311 - a load, no secret
        self._num_turns = settings.num_turns()
        self._first = settings.prompt()
        self._later = settings.later_turns()
        self._answer = settings.answer()
        self._thinking = settings.thinking()

    def of(self, number: int, beginning: Sequence[Piece]) -> Iterator[TurnPlan]:
        """The turns of the next conversation.

        Args:
            number: of the conversation; makes its words its own.
            beginning: what it shares with others.
        """
        for turn in range(self._num_turns.count(self._random_numbers)):
            length = (self._later if turn else self._first).count(self._random_numbers)
            own = Piece(piece_key("turn", number, turn), length)
            yield TurnPlan(
                messages=user_message(*(() if turn else beginning), own),
                answer_tokens=self._answer.count(self._random_numbers),
                think_s=self._thinking.number(self._random_numbers) if turn else 0.0,
            )


def _shared_beginnings(settings: WorkloadSettings) -> Iterator[Sequence[Piece]]:
    if settings.prefixes is None or settings.prefix_tokens is None:
        return itertools.repeat(())
    exponent = DEFAULT_ZIPF if settings.prefix_zipf is None else settings.prefix_zipf
    beginnings = [
        (Piece(piece_key("prefix", rank), settings.prefix_tokens, is_shared=True),)
        for rank in range(settings.prefixes)
    ]
    weights = list(itertools.accumulate((rank + 1) ** -exponent for rank in range(settings.prefixes)))
    random_numbers = random.Random(f"prefixes {settings.seed}")  # noqa: S311 - a load, no secret
    return (random_numbers.choices(beginnings, cum_weights=weights)[0] for _ in itertools.count())
