"""Clients that ask and ask again while faults come, and what became of their questions."""

import asyncio
import itertools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import httpx

from deploy.bench.chaos.answer import Answer
from deploy.bench.chaos.client import READ_TIMEOUT_S, Asked, ask
from deploy.bench.chaos.question import Question, wants_stop

MAX_ERRORS = 10  # that are shown; the rest say the same
Heard = Callable[[Asked], None]
"""Called with every question that has ended, on the event loop."""


@dataclass(frozen=True, slots=True)
class StormReport:
    """What became of all questions.

    Attributes:
        requests: asked.
        lost: without an answer.
        wrong: with another one.
        longest_pause_s: of any stream, between two pieces of text.
        longest_ttft_s: from asking to the first text of a stream.
        longest_whole_s: from asking to an answer in one piece.
        reconnects: of all clients.
        errors: what was wrong with the first of the lost and the wrong.
    """

    requests: int
    lost: int
    wrong: int
    longest_pause_s: float
    longest_ttft_s: float
    longest_whole_s: float
    reconnects: int
    errors: tuple[str, ...]

    @property
    def longest_wait_s(self) -> float:
        """Longest that any client was without anything new."""
        return max(self.longest_pause_s, self.longest_ttft_s, self.longest_whole_s)

    @classmethod
    def of(cls, asked: Sequence[Asked], expected: Mapping[int, Answer]) -> "StormReport":
        """Compares with what is right, by the number of the question."""
        lost = [f"question {each.question.number}: {each.failure}" for each in asked if each.answer is None]
        wrong = [
            f"question {each.question.number}, {each.question.kind}: {difference}"
            for each in asked
            if each.answer is not None and (difference := each.answer.difference(expected[each.question.number]))
        ]
        return cls(
            requests=len(asked),
            lost=len(lost),
            wrong=len(wrong),
            longest_pause_s=max((each.longest_pause_s for each in asked), default=0.0),
            longest_ttft_s=max((each.ttft_s for each in asked), default=0.0),
            longest_whole_s=max((each.whole_s for each in asked), default=0.0),
            reconnects=sum(each.num_reconnects for each in asked),
            errors=tuple([*lost, *wrong][:MAX_ERRORS]),
        )


def draws(questions: Sequence[Question], seed: int, goes_on: Callable[[int], bool]) -> Iterator[Question]:
    """The questions at random, each as often as it comes, while it goes on after so many."""
    choice = random.Random(seed)  # noqa: S311 - not for secrets
    return (choice.choice(questions) for _ in itertools.takewhile(goes_on, itertools.count()))


def ask_all(url: str, questions: Iterator[Question], num_clients: int, on_end: Heard) -> list[Asked]:
    """So many clients ask one question after the other until there are none left; in the order of their ends."""
    return asyncio.run(_ask_all(url, questions, num_clients, on_end))


def undisturbed(
    url: str, questions: Sequence[Question], num_clients: int, on_end: Heard
) -> tuple[list[Question], StormReport, dict[int, Answer]]:
    """Asks every question of a cluster that nothing happens to.

    Those that are to end at a stop string are asked beforehand without one, for it is cut out of their answers.

    Returns:
        The questions, with stop strings; what became of them; the answers by number.
    """
    learnt = ask_all(url, iter([q for q in questions if wants_stop(q)]), num_clients, on_end)
    texts = {each.question.number: each.answer.text for each in learnt if each.answer is not None}
    asked = [q.stopping_at(texts[q.number]) if q.number in texts else q for q in questions]
    again = ask_all(url, iter(asked), num_clients, on_end)
    expected = {each.question.number: each.answer for each in again if each.answer is not None}
    return asked, StormReport.of(again, expected), expected


async def _ask_all(url: str, questions: Iterator[Question], num_clients: int, on_end: Heard) -> list[Asked]:
    ended: list[Asked] = []

    async def client(http: httpx.AsyncClient) -> None:
        for question in questions:
            asked = await ask(http, question)
            ended.append(asked)
            on_end(asked)

    limits = httpx.Limits(max_connections=num_clients)
    async with (
        httpx.AsyncClient(base_url=url, timeout=READ_TIMEOUT_S, limits=limits, trust_env=False) as http,
        asyncio.TaskGroup() as group,
    ):
        for _ in range(num_clients):
            group.create_task(client(http))
    return ended
