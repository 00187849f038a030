"""Sending one chat answer, whole or as a stream: plain ASGI, for this is the path every token takes."""

from collections.abc import Awaitable, Callable, Sequence

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from core.errors import BatonError, InvalidRequestError
from core.logprobs import TokenLogprobs
from router.http.chat_response import AnswerMessage, ChatCompletion, Choice, ChoiceLogprobs, Usage
from router.http.chunk_encoder import ChunkEncoder, error_event
from router.http.disconnect import run_while_connected
from router.http.errors import error_body
from router.http.event_id import COMPLETION_PREFIX, EventId, Stage
from router.http.logprobs import choice_logprobs
from router.http.prepare import PreparedChat
from router.http.rendering import prepared_of
from router.http.timing import timing_comment, timing_headers
from router.journal.journal import OpenAnswer
from router.observe.call import name_call
from router.text.stream import TextDelta, TextGeneration
from router.text.tokenizer import TextCodec

NO_CONTENT = 204


class ChatAnswer(Response):
    """An ASGI response that has a request answered and sends the answer.

    The answer is opened only when the response is sent, so none is left unread in between, and it is let go of at
    once when the client disconnects or sending is cancelled. A failure before the first token is raised, so that it
    is answered with its own HTTP status.
    """

    def __init__(
        self,
        open_answer: Callable[[], Awaitable[OpenAnswer]],
        codec: TextCodec,
        last_event: EventId | None = None,
        *,
        has_event_ids: bool = True,
    ) -> None:
        """`open_answer` submits the request or finds it; the codec knows the text of tokens.

        What the client has got already, up to `last_event`, is not sent again. A found request has been checked with
        `check_rendering`. Events have ids unless the client does not want them.
        """
        self.background = None  # what FastAPI reads and sets on every response
        self._open_answer = open_answer
        self._codec = codec
        self._last_event = last_event
        self._has_event_ids = has_event_ids

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the answer.

        Raises:
            BatonError: it failed before anything was sent.
        """
        await run_while_connected(receive, self._answer(send), scope)

    async def _answer(self, send: Send) -> None:
        opened = await self._open_answer()
        name_call(opened.head.request_id)  # perhaps that of an earlier request
        async with opened.text as text:
            prepared = prepared_of(opened.head)
            sender_type = ChatStream if prepared.stream else WholeChat
            sender = sender_type(
                prepared, int(opened.head.created_s), self._codec, send, has_event_ids=self._has_event_ids
            )
            await sender.send(text, self._last_event)


class ChatSender:
    """Sends one answer that has been opened.

    Args:
        prepared: what is answered, and how.
        created_s: when the request came, in seconds since 1970.
        codec: knows the text of tokens.
        send: ASGI's.
        has_event_ids: whether events say how far the stream has come.
    """

    def __init__(
        self, prepared: PreparedChat, created_s: int, codec: TextCodec, send: Send, *, has_event_ids: bool
    ) -> None:
        self._prepared = prepared
        self._created_s = created_s
        self._codec = codec
        self._send = send
        self._has_event_ids = has_event_ids
        self._completion_id = f"{COMPLETION_PREFIX}{prepared.generation.request_id}"

    async def send(self, answer: TextGeneration, last_event: EventId | None) -> None:
        """Sends what comes after an event, or everything."""
        raise NotImplementedError

    def _usage(self, answer: TextGeneration) -> Usage:
        num_prompt_tokens = len(self._prepared.generation.prompt)
        return Usage.of(num_prompt_tokens, answer.num_completion_tokens, answer.num_cached_tokens)

    def _logprobs(self, logprobs: Sequence[TokenLogprobs]) -> ChoiceLogprobs | None:
        """What the client asked for; None when it did not."""
        is_asked = self._prepared.generation.sampling.logprobs is not None
        return choice_logprobs(self._codec, logprobs) if is_asked else None

    def _start(self, *headers: tuple[bytes, bytes]) -> Message:
        request_id = self._prepared.generation.request_id.encode("ascii")
        return {"type": "http.response.start", "status": 200, "headers": [(b"x-request-id", request_id), *headers]}


class WholeChat(ChatSender):
    """Sends the answer as one JSON document when it is complete."""

    async def send(self, answer: TextGeneration, last_event: EventId | None) -> None:
        """See `ChatSender.send`."""
        assert last_event is None, "check_rendering() refuses events of an answer that has none"
        texts: list[str] = []
        entries: list[str] = []  # encoded as they come: all at once, those of a long answer would hold up everybody
        delta = None
        while delta is None or delta.finish_reason is None:
            delta = await answer.read()
            texts.append(delta.text)
            if scores := self._logprobs(delta.logprobs):
                entries += [entry.model_dump_json() for entry in scores.content]
        is_scored = self._logprobs(()) is not None
        message = AnswerMessage(content="".join(texts))
        completion = ChatCompletion(
            id=self._completion_id,
            created=self._created_s,
            model=self._prepared.model,
            choices=[Choice(message=message, logprobs=None, finish_reason=delta.finish_reason.value)],
            usage=self._usage(answer),
        )
        body = completion.model_dump_json().encode()
        if is_scored:  # no text contains the key like this: quotes in it are escaped
            content = ",".join(entries).encode()
            body = body.replace(b'"logprobs":null', b'"logprobs":{"content":[%b],"refusal":null}' % content, 1)
        headers = ((b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)))
        await self._send(self._start(*headers, *timing_headers()))
        await self._send({"type": "http.response.body", "body": body})


class ChatStream(ChatSender):
    """Sends the answer as server-sent events; all text that has queued up since the last write is one event."""

    async def send(self, answer: TextGeneration, last_event: EventId | None) -> None:
        """See `ChatSender.send`.

        Raises:
            InvalidRequestError: the answer has no such event.
        """
        if last_event is not None and last_event.stage is Stage.DONE:
            # The one status after which browsers do not reconnect.
            await self._send({"type": "http.response.start", "status": NO_CONTENT, "headers": []})
            await self._send({"type": "http.response.body", "body": b""})
            return
        is_ended = False
        if last_event is not None:
            is_ended = await skip_sent(answer, last_event)
        delta = None if is_ended else await answer.read()
        await self._send(
            self._start(
                (b"content-type", b"text/event-stream; charset=utf-8"),
                (b"cache-control", b"no-cache"),
                (b"x-accel-buffering", b"no"),  # nginx would hold events back
            )
        )
        try:
            await self._send_events(delta, answer, last_event)
        except Exception as error:
            # The status is long sent: the stream says what happened, and ends without [DONE].
            await self._send({"type": "http.response.body", "body": error_event(error_body(error))})
            if not isinstance(error, BatonError):
                raise

    async def _send_events(self, delta: TextDelta | None, answer: TextGeneration, last_event: EventId | None) -> None:
        """Sends a delta and all that follow it; None when the last one has been sent."""
        encoder = ChunkEncoder(
            self._completion_id,
            self._created_s,
            self._prepared.model,
            include_usage=self._prepared.include_usage,
            has_event_ids=self._has_event_ids,
        )
        events = b"" if delta is None else self._chunk(encoder, delta, answer, first=last_event is None)
        while delta is not None and delta.finish_reason is None:
            if events:
                await self._send({"type": "http.response.body", "body": events, "more_body": True})
            delta = await answer.read()
            events = self._chunk(encoder, delta, answer)
        if self._prepared.include_usage and (last_event is None or last_event.stage is not Stage.USAGE):
            events += encoder.usage(self._usage(answer))
        events += timing_comment() + encoder.done(answer.num_completion_tokens)
        await self._send({"type": "http.response.body", "body": events})

    def _chunk(
        self, encoder: ChunkEncoder, delta: TextDelta, answer: TextGeneration, *, first: bool = False
    ) -> bytes:
        if not (first or delta.text or delta.logprobs or delta.finish_reason):
            return b""  # part of a character, or of a possible stop string
        return encoder.text(
            delta.text,
            answer.num_completion_tokens,
            first=first,
            finish_reason=delta.finish_reason,
            logprobs=self._logprobs(delta.logprobs) if delta.logprobs else None,
            usage=self._usage(answer) if self._prepared.continuous_usage else None,
        )


async def skip_sent(answer: TextGeneration, last_event: EventId) -> bool:
    """Reads what a client has got; returns whether that is the whole answer, whose last delta has been read then.

    The answer must end a delta after the tokens that the client has got.

    Raises:
        InvalidRequestError: the answer has no such event.
        BatonError: the answer failed.
    """
    is_ended = False
    while not is_ended and (
        last_event.stage is not Stage.TEXT or answer.num_completion_tokens < last_event.num_tokens
    ):
        is_ended = (await answer.read()).finish_reason is not None
    if is_ended is (last_event.stage is Stage.TEXT) or answer.num_completion_tokens != last_event.num_tokens:
        raise InvalidRequestError(
            f"Last-Event-ID says {last_event.num_tokens} tokens, and there is no such event in this answer; send the "
            "`id` of the last event that came",
            param="Last-Event-ID",
        )
    return is_ended
