"""Sends the conversations of a load: on a schedule, whatever the server does, or so many at once."""

import asyncio
import itertools
from collections.abc import Iterator

from loadtest.load.allowance import Allowance
from loadtest.load.client import Asker
from loadtest.load.conversation import Conversation, Message
from loadtest.load.load_clock import LoadClock
from loadtest.load.record import RequestRecord

# After a failure a closed loop waits so long: else a server that refuses would be asked as fast as the client can.
FAILURE_PAUSE_S = 0.1


class Sending:
    """One run's requests.

    Args:
        asker: sends them.
        clock: their time.
        allowance: how many there may be.

    Attributes:
        records: of all requests so far, in the order in which they were begun; those under way grow.
    """

    def __init__(self, asker: Asker, clock: LoadClock, allowance: Allowance) -> None:
        self.records: list[RequestRecord] = []
        self._asker = asker
        self._clock = clock
        self._allowance = allowance
        self._numbers = itertools.count()

    async def open_loop(self, conversations: Iterator[Conversation]) -> None:
        """Begins each conversation at its time, never waiting for an answer; returns when all have ended.

        Args:
            conversations: by rising time. Each is drawn, and so its prompt made, before its time has come.
        """
        async with asyncio.TaskGroup() as group:
            for conversation in conversations:
                assert conversation.at_s is not None, "an open loop has times"
                if not self._allowance.is_left(conversation.at_s):
                    return
                await self._clock.sleep_until(conversation.at_s)
                group.create_task(self._hold(conversation, conversation.at_s))
                await asyncio.sleep(0)  # it is sent, and counted, before the next prompt is made

    async def closed_loop(self, conversations: Iterator[Conversation], concurrency: int) -> None:
        """Holds so many conversations at once; returns when all have ended.

        The next one is due when one has ended, or `FAILURE_PAUSE_S` after it has failed.
        """
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(self._hold_one_by_one(conversations))

    async def _hold_one_by_one(self, conversations: Iterator[Conversation]) -> None:
        due_s = self._clock.now_s()
        while self._allowance.is_left(due_s):
            await self._clock.sleep_until(due_s)
            conversation = next(conversations, None)
            if conversation is None:
                return
            due_s = await self._hold(conversation, due_s)

    async def _hold(self, conversation: Conversation, due_s: float) -> float:
        """Asks turn after turn, until one fails: what follows would be another conversation.

        Returns:
            When another may follow.
        """
        number = next(self._numbers)
        messages: list[Message] = []
        planned_tokens: int | None = 0
        for index, turn in enumerate(conversation.turns):
            if index > 0:
                due_s += turn.think_s
                if not self._allowance.is_left(due_s):
                    return due_s
                await self._clock.sleep_until(due_s)
            messages += turn.messages
            planned_tokens = _sum(planned_tokens, turn.prompt_tokens)
            record = self._begin(due_s, number, index, planned_tokens)
            if record is None:
                return due_s
            is_last = index == len(conversation.turns) - 1
            text = await self._asker.ask(record, messages, turn.answer_tokens, keeps_text=not is_last)
            assert record.ended_s is not None, "a request that is not waited for any more has ended"
            due_s = record.ended_s
            if record.error is not None:
                return due_s + FAILURE_PAUSE_S
            messages.append(Message("assistant", text))
            planned_tokens = _sum(planned_tokens, record.output_tokens)
        return due_s

    def _begin(self, due_s: float, conversation: int, turn: int, planned_tokens: int | None) -> RequestRecord | None:
        number = self._allowance.take(due_s)
        if number is None:
            return None
        record = RequestRecord(
            number, conversation, turn, due_s, sent_s=self._clock.now_s(), planned_prompt_tokens=planned_tokens
        )
        self.records.append(record)
        return record


def _sum(tokens: int | None, more: int | None) -> int | None:
    return None if tokens is None or more is None else tokens + more
