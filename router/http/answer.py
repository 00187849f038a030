"""Sending one chat answer, whole or as a stream: plain ASGI, for this is the path every token takes."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from core.errors import BatonError
from core.logprobs import TokenLogprobs
from router.http.chat_response import AnswerMessage, ChatCompletion, Choice, ChoiceLogprobs, Usage
from router.http.chunk_encoder import DONE, ChunkEncoder, error_event
from router.http.disconnect import run_while_connected
from router.http.errors import error_body
from router.http.logprobs import choice_logprobs
from router.http.prepare import PreparedChat
from router.http.timing import timing_comment, timing_headers
from router.text.stream import TextDelta, TextGeneration
from router.text.tokenizer import TextCodec

OpenAnswer = Callable[[PreparedChat], TextGeneration]


class ChatAnswer(Response):
    """An ASGI response that submits a prepared request and sends its answer.

    The request is submitted only when the response is sent, so no answer is left unread in between, and its work
    is cancelled at once when the client disconnects or sending is cancelled. A failure before the first token is
    raised, so that it is answered with its own HTTP status.
    """

    def __init__(self, prepared: PreparedChat, open_answer: OpenAnswer, codec: TextCodec) -> None:
        """`open_answer` submits the request; the codec knows the text of tokens."""
        self.background = None  # what FastAPI reads and sets on every response
        self._codec = codec
        self._prepared = prepared
        self._open_answer = open_answer
        self._completion_id = f"chatcmpl-{prepared.generation.request_id}"
        self._created_s = int(time.time())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        """Sends the answer.

        Raises:
            BatonError: it failed before anything was sent.
        """
        answer: AbstractAsyncContextManager[TextGeneration] = self._open_answer(self._prepared)
        async with answer as text:
            await run_while_connected(receive, self._send_answer(text, send))

    async def _send_answer(self, answer: TextGeneration, send: Send) -> None:
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


class WholeChatAnswer(ChatAnswer):
    """Sends the answer as one JSON document when it is complete."""

    async def _send_answer(self, answer: TextGeneration, send: Send) -> None:
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
        await send(self._start(*headers, *timing_headers()))
        await send({"type": "http.response.body", "body": body})


class StreamedChatAnswer(ChatAnswer):
    """Sends the answer as server-sent events; all text that has queued up since the last write is one event."""

    async def _send_answer(self, answer: TextGeneration, send: Send) -> None:
        delta = await answer.read()
        await send(
            self._start(
                (b"content-type", b"text/event-stream; charset=utf-8"),
                (b"cache-control", b"no-cache"),
                (b"x-accel-buffering", b"no"),  # nginx would hold events back
            )
        )
        try:
            await self._send_events(delta, answer, send)
        except Exception as error:
            # The status is long sent: the stream says what happened, and ends without [DONE].
            await send({"type": "http.response.body", "body": error_event(error_body(error))})
            if not isinstance(error, BatonError):
                raise

    async def _send_events(self, delta: TextDelta, answer: TextGeneration, send: Send) -> None:
        encoder = ChunkEncoder(
            self._completion_id,
            self._created_s,
            self._prepared.model,
            include_usage=self._prepared.include_usage,
        )
        events = self._chunk(encoder, delta, answer, first=True)
        while delta.finish_reason is None:
            if events:
                await send({"type": "http.response.body", "body": events, "more_body": True})
            delta = await answer.read()
            events = self._chunk(encoder, delta, answer)
        if self._prepared.include_usage:
            events += encoder.usage(self._usage(answer))
        await send({"type": "http.response.body", "body": events + timing_comment() + DONE})

    def _chunk(
        self, encoder: ChunkEncoder, delta: TextDelta, answer: TextGeneration, *, first: bool = False
    ) -> bytes:
        if not (first or delta.text or delta.logprobs or delta.finish_reason):
            return b""  # part of a character, or of a possible stop string
        return encoder.text(
            delta.text,
            first=first,
            finish_reason=delta.finish_reason,
            logprobs=self._logprobs(delta.logprobs) if delta.logprobs else None,
            usage=self._usage(answer) if self._prepared.continuous_usage else None,
        )
