"""Schedules on a virtual clock: exact, and in no time."""

import asyncio
from collections.abc import Iterator, Sequence

import pytest

from loadtest.load.allowance import Allowance
from loadtest.load.conversation import Conversation, Message, Turn
from loadtest.load.record import RequestRecord
from loadtest.load.sending import FAILURE_PAUSE_S, Sending
from tests.loadtest.load.virtual_time import VirtualClock, run_virtually


class Server:
    """Answers each request after so many seconds; the answers of `failing` requests fail."""

    def __init__(self, answer_s: float, failing: Sequence[int] = ()) -> None:
        self.messages: list[list[Message]] = []
        self.most_at_once = self.num_at_once = 0
        self._answer_s = answer_s
        self._failing = failing
        self._clock = VirtualClock()

    async def ask(
        self, record: RequestRecord, messages: Sequence[Message], answer_tokens: int, *, keeps_text: bool
    ) -> str:
        self.messages.append(list(messages))
        self.num_at_once += 1
        self.most_at_once = max(self.most_at_once, self.num_at_once)
        await asyncio.sleep(self._answer_s)
        self.num_at_once -= 1
        record.ended_s, record.output_tokens = self._clock.now_s(), answer_tokens
        record.error = "http_500" if record.number in self._failing else None
        return "answer" if keeps_text else ""

    def close(self) -> None: ...


def single(at_s: float | None = None) -> Conversation:
    return Conversation(at_s, (Turn((Message("user", "hi"),), 4, prompt_tokens=10),))


def every_second() -> Iterator[Conversation]:
    second = 0.0
    while True:
        yield single(second)
        second += 1.0


def always() -> Iterator[Conversation]:
    while True:
        yield single()


def sent_open(server: Server, conversations: Iterator[Conversation], allowance: Allowance) -> list[RequestRecord]:
    sending = Sending(server, VirtualClock(), allowance)
    run_virtually(sending.open_loop(conversations))
    return sending.records


def sent_closed(server: Server, concurrency: int, allowance: Allowance) -> list[RequestRecord]:
    sending = Sending(server, VirtualClock(), allowance)
    run_virtually(sending.closed_loop(always(), concurrency))
    return sending.records


def test_open_loop_sends_on_time_however_slow_the_server_is() -> None:
    server = Server(answer_s=100.0)
    records = sent_open(server, every_second(), Allowance(None, 10.0))
    assert [record.due_s for record in records] == [record.sent_s for record in records] == list(range(10))
    assert server.most_at_once == 10
    assert all(record.is_answered for record in records)


def test_open_loop_ends_with_its_requests_or_its_conversations() -> None:
    assert len(sent_open(Server(1.0), every_second(), Allowance(7, None))) == 7
    assert len(sent_open(Server(1.0), iter([single(0.0), single(0.5)]), Allowance(None, None))) == 2


def test_closed_loop_has_so_many_at_once_until_its_time_is_over() -> None:
    server = Server(answer_s=2.0)
    records = sent_closed(server, 3, Allowance(None, 10.0))
    assert server.most_at_once == 3
    assert [record.due_s for record in records] == [0.0] * 3 + [2.0] * 3 + [4.0] * 3 + [6.0] * 3 + [8.0] * 3
    assert [record.number for record in records] == list(range(15))


def test_closed_loop_ends_with_its_requests() -> None:
    assert len(sent_closed(Server(2.0), 4, Allowance(6, None))) == 6


def test_closed_loop_asks_a_server_that_fails_at_once_only_so_often() -> None:
    server = Server(answer_s=0.0, failing=range(1000))
    records = sent_closed(server, 2, Allowance(None, 9.5 * FAILURE_PAUSE_S))
    assert [record.due_s for record in records[::2]] == pytest.approx([FAILURE_PAUSE_S * i for i in range(10)])
    assert len(records) == 20


def test_open_loop_does_not_wait_for_a_time_at_which_nothing_is_sent() -> None:
    async def run() -> None:
        await Sending(Server(0.5), VirtualClock(), Allowance(2, None)).open_loop(
            iter([single(0.0), single(1.0), single(600.0)])
        )
        assert VirtualClock().now_s() == 1.5

    run_virtually(run())


def conversation(think_s: float = 3.0) -> Conversation:
    turns = (
        Turn((Message("system", "be kind"), Message("user", "one")), 4, prompt_tokens=10),
        Turn((Message("user", "two"),), 5, prompt_tokens=20, think_s=think_s),
        Turn((Message("user", "three"),), 6, prompt_tokens=None, think_s=think_s),
    )
    return Conversation(1.0, turns)


def test_turns_carry_the_answers_before_them_and_come_after_a_pause() -> None:
    server = Server(answer_s=2.0)
    records = sent_open(server, iter([conversation()]), Allowance(None, None))
    assert [(record.conversation, record.turn, record.due_s) for record in records] == [
        (0, 0, 1.0),
        (0, 1, 6.0),
        (0, 2, 11.0),
    ]
    said = [message.content for message in server.messages[-1]]
    assert said == ["be kind", "one", "answer", "two", "answer", "three"]
    assert [record.planned_prompt_tokens for record in records] == [10, 34, None]


def test_conversation_ends_with_a_failure() -> None:
    records = sent_open(Server(2.0, failing=[1]), iter([conversation()]), Allowance(None, None))
    assert [record.error for record in records] == [None, "http_500"]


@pytest.mark.parametrize(("is_open", "ended_s"), [(True, 3.0), (False, 2.0)])
def test_turn_that_is_due_too_late_is_neither_sent_nor_waited_for(is_open: bool, ended_s: float) -> None:
    sending, clock = Sending(Server(2.0), VirtualClock(), Allowance(None, 6.0)), VirtualClock()

    async def run() -> None:
        thinking = iter([conversation(think_s=600.0)])
        await (sending.open_loop(thinking) if is_open else sending.closed_loop(thinking, 1))
        assert clock.now_s() == ended_s

    run_virtually(run())
    assert len(sending.records) == 1
