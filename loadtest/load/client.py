"""Asks a server for answers, each into its record. Not when: that is the run's."""

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from typing import Protocol

from core.clock import Clock
from loadtest.load.answer_reader import AnswerReader
from loadtest.load.chat_body import ChatBodies
from loadtest.load.connection_pool import ConnectionPool, TooManyConnectionsError
from loadtest.load.conversation import Message
from loadtest.load.exchange import Exchange
from loadtest.load.record import RequestRecord
from loadtest.load.target import Target, chat_head


class Asker(Protocol):
    """Who a run has its requests sent by."""

    async def ask(
        self, record: RequestRecord, messages: Sequence[Message], answer_tokens: int, *, keeps_text: bool
    ) -> str:
        """Sends a request and waits for what becomes of it, which is all in the record then. No failure is raised.

        Returns:
            The answer's text, if it is to be kept and came; else an empty one.
        """
        ...

    def close(self) -> None:
        """Lets go of what it has open. Nobody asks any more."""
        ...


class LoadClient:
    """An `Asker` over HTTP.

    Args:
        target: who is asked.
        headers: of every request.
        bodies: of every request.
        tls: how the server is verified, over TLS.
        clock: of the records.
        examples: gets, for each kind of failure, what was said of the first.
        max_open: connections at once.
        timeout_s: for one answer, from setting out to ask to its end.
    """

    def __init__(
        self,
        target: Target,
        headers: Mapping[str, str],
        bodies: ChatBodies,
        *,
        tls: ssl.SSLContext | None,
        clock: Clock,
        examples: dict[str, str],
        max_open: int,
        timeout_s: float,
    ) -> None:
        self._head = chat_head(target, headers)
        self._bodies = bodies
        self._clock = clock
        self._examples = examples
        self._timeout_s = timeout_s
        self._pool = ConnectionPool(target, tls, clock, max_open)

    async def ask(
        self, record: RequestRecord, messages: Sequence[Message], answer_tokens: int, *, keeps_text: bool
    ) -> str:
        """See `Asker`."""
        body = self._bodies.encode(messages, answer_tokens)
        reader = AnswerReader(record, keeps_text=keeps_text)
        record.sent_s = self._clock.now_s()
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._exchange(b"%b%d\r\n\r\n%b" % (self._head, len(body), body), reader)
        except TimeoutError:
            reader.fail("timeout", f"no complete answer after {self._timeout_s:g} s", self._clock.now_s())
        text = reader.text() if keeps_text and record.error is None else ""
        if record.error is not None:
            self._examples.setdefault(record.error, reader.example)
        return text

    def close(self) -> None:
        """See `Asker`."""
        self._pool.close()

    async def _exchange(self, request: bytes, reader: AnswerReader) -> None:
        try:
            connection = await self._pool.take()
        except TooManyConnectionsError as error:
            reader.fail("max_open", str(error), self._clock.now_s())
            return
        except (OSError, UnicodeError) as error:
            reader.fail("connect", str(error), self._clock.now_s())
            return
        exchange = Exchange(reader)
        connection.send(request, exchange)
        try:
            await exchange.ended
        finally:
            if not exchange.is_over:
                connection.close()
