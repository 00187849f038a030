"""The gRPC client API: one prompt in, a stream of tokens and text out."""

import asyncio
import hashlib
import logging
import time
from collections.abc import Sequence
from dataclasses import replace

from baton.v1 import generate_pb2, generate_pb2_grpc

from core.errors import BatonError, DeadlineError, InternalError, InvalidRequestError
from core.ids import new_request_id
from core.request import FinishReason, GenerationRequest
from router import wire
from router.auth.caller import current_caller
from router.describe import describe
from router.intake import MAX_PARTS, MAX_STOP_CHARS, MAX_STOPS, Intake, SamplingOptions
from router.journal.head import RequestHead
from router.journal.journal import Journal, OpenAnswer
from router.observe.call import name_call
from router.rpc.context import Context, abort
from router.rpc.timing import tell_timing
from router.text.stream import TextDelta, TextGeneration
from router.text.tokenizer import TextCodec

MAX_KEY_CHARS = 255
CHAT_ROLES = ("system", "user", "assistant")
WRITE_TIMEOUT_S = 600.0  # as of the HTTP server
REQUEST_ID_KEY = "x-request-id"  # of a call's initial metadata
SCALARS = tuple(field.name for field in generate_pb2.SamplingOptions.DESCRIPTOR.fields if field.has_presence)

logger = logging.getLogger(__name__)


class GenerateService(generate_pb2_grpc.GenerateServiceServicer):
    """Serves `GenerateService` on the router's event loop.

    Args:
        journal: has requests answered.
        codec: the model's tokenizer and chat template.
        intake: checks requests.
        limit_s: seconds after which a request fails at the latest.
        write_timeout_s: a client that takes nothing of its answer for so long is treated as gone.
    """

    def __init__(
        self,
        journal: Journal,
        codec: TextCodec,
        intake: Intake,
        limit_s: float,
        *,
        write_timeout_s: float = WRITE_TIMEOUT_S,
    ) -> None:
        self._write_timeout_s = write_timeout_s
        self._journal = journal
        self._codec = codec
        self._intake = intake
        self._limit_s = limit_s

    async def Generate(  # noqa: N802 - the name is the service's
        self, request: generate_pb2.GenerateRequest, context: Context
    ) -> None:
        """Streams one answer; a cancelled call stops the work, unless it has a key."""
        try:
            self._intake.check_model(request.model)
            opened = await self._open(request, context)
            name_call(opened.head.request_id)  # perhaps that of an earlier request
            async with opened.text as answer:
                await context.send_initial_metadata(((REQUEST_ID_KEY, answer.request_id),))
                ended = await _skip_received(answer, request.resume.num_tokens)
                await self._send(answer, ended, len(opened.head.request.prompt), context)
        except BatonError as error:
            await abort(context, error)
        except Exception as error:
            logger.exception("a defect while answering over gRPC")
            await abort(context, InternalError(f"{type(error).__name__} in the server; see its log"))

    async def AbortRequest(  # noqa: N802 - the name is the service's
        self, request: generate_pb2.AbortRequestRequest, context: Context
    ) -> generate_pb2.AbortRequestResponse:
        """Ends a request of the caller."""
        try:
            await self._journal.abort(request.request_id, current_caller().tenant)
        except BatonError as error:
            await abort(context, error)
        return generate_pb2.AbortRequestResponse()

    async def _open(self, request: generate_pb2.GenerateRequest, context: Context) -> OpenAnswer:
        if request.HasField("resume"):
            point = request.resume
            return await self._journal.resume(point.request_id, current_caller().tenant, num_tokens=point.num_tokens)
        if (num_chars := len(request.idempotency_key)) > MAX_KEY_CHARS:
            raise InvalidRequestError(
                f"idempotency_key has {num_chars} characters; at most {MAX_KEY_CHARS} are accepted",
                param="idempotency_key",
            )
        prepared, now_s = await self._prepare(request), time.time()
        timeout_s = shorter(prepared.timeout_s, context.time_remaining())
        head = RequestHead(
            request=replace(prepared, timeout_s=timeout_s),
            stops=tuple(request.stop),
            created_s=now_s,
            deadline_s=now_s + (self._limit_s if timeout_s is None else min(timeout_s, self._limit_s)),
            fingerprint=hashlib.sha256(request.SerializeToString(deterministic=True)).hexdigest(),
        )
        if request.idempotency_key:
            return await self._journal.start_once(head, request.idempotency_key, interrupts=True)
        return await self._journal.start(head)

    async def _send(
        self, answer: TextGeneration, ended: FinishReason | None, num_prompt_tokens: int, context: Context
    ) -> None:
        """Sends what comes; if the answer has ended with what the caller has got, only that and why."""
        # Written, not yielded: a call that is cancelled while it writes unwinds this very task.
        request_id = answer.request_id
        delta = await answer.read() if ended is None else TextDelta("", (), ended)
        while delta.finish_reason is None:
            await self._write(delta_to_proto(delta, request_id), context)
            request_id, delta = "", await answer.read()
        last = delta_to_proto(delta, request_id)
        last.finish_reason = wire.FINISH_TO_PROTO[delta.finish_reason]
        last.usage.prompt_tokens = num_prompt_tokens
        last.usage.completion_tokens = answer.num_completion_tokens
        last.usage.cached_tokens = answer.num_cached_tokens
        await self._write(last, context)
        tell_timing(context)

    async def _write(self, message: generate_pb2.GenerateResponse, context: Context) -> None:
        """Waits while the client does not read: what it has not taken is one message here, and tokens as numbers."""
        try:
            async with asyncio.timeout(self._write_timeout_s):
                await context.write(message)
        except TimeoutError:
            raise DeadlineError(
                f"the client has taken nothing of its answer for {self._write_timeout_s:g} s; read it sooner"
            ) from None

    async def _prepare(self, request: generate_pb2.GenerateRequest) -> GenerationRequest:
        request_id = new_request_id()
        name_call(request_id)
        if len(request.stop) > MAX_STOPS or not all(0 < len(text) <= MAX_STOP_CHARS for text in request.stop):
            raise InvalidRequestError(
                f"stop has {len(request.stop)} texts; at most {MAX_STOPS}, each of 1 to {MAX_STOP_CHARS} characters, "
                "are accepted",
                param="stop",
            )
        return self._intake.request(
            request_id,
            await self._prompt(request),
            prompt_param="prompt",
            sampling=sampling_from_proto(request.sampling),
            max_tokens=request.max_tokens if request.HasField("max_tokens") else None,
            stop_token_ids=request.stop_token_ids,
            ignore_eos=request.ignore_eos,
            cache_salt=request.cache_salt,
            priority=request.priority,
            timeout_s=request.timeout_s if request.HasField("timeout_s") else None,
            name=request.request_id,
        )

    async def _prompt(self, request: generate_pb2.GenerateRequest) -> Sequence[int]:
        """Token ids of whichever kind of prompt was sent; tokenizes off the event loop."""
        if request.HasField("tokens"):
            return list(request.tokens.ids)
        if request.HasField("text"):
            return await asyncio.to_thread(self._codec.encode, request.text, add_special_tokens=True)
        messages = [{"role": message.role, "content": message.content} for message in request.chat.messages]
        if not messages:
            raise InvalidRequestError("there is no prompt; send text, tokens or chat messages", param="prompt")
        if len(messages) > MAX_PARTS:
            raise InvalidRequestError(
                f"chat has {len(messages)} messages; at most {MAX_PARTS} are accepted: join some", param="chat"
            )
        for message in messages:
            if message["role"] not in CHAT_ROLES:
                raise InvalidRequestError(
                    f"role is {describe(message['role'])}; it must be one of {', '.join(CHAT_ROLES)}", param="chat"
                )
        return await asyncio.to_thread(self._codec.encode_chat, messages)


def sampling_from_proto(message: generate_pb2.SamplingOptions) -> SamplingOptions:
    """What the client said; absent fields are None."""
    said = {name: getattr(message, name) for name in SCALARS if message.HasField(name)}
    return SamplingOptions(**said, logit_bias=dict(message.logit_bias), bad_words=tuple(message.bad_words))


def delta_to_proto(delta: TextDelta, request_id: str) -> generate_pb2.GenerateResponse:
    """What arrived since the last message; without what ends the answer. The id is empty but in the first message."""
    logprobs = [wire.logprobs_to_proto(each) for each in delta.logprobs]
    return generate_pb2.GenerateResponse(
        token_ids=delta.token_ids, text=delta.text, logprobs=logprobs, request_id=request_id
    )


async def _skip_received(answer: TextGeneration, num_tokens: int) -> FinishReason | None:
    """Reads what a caller has got; returns why the answer ended if it did with that.

    Raises:
        InvalidRequestError: the answer has fewer tokens.
    """
    reason = None
    while reason is None and answer.num_completion_tokens < num_tokens:
        reason = (await answer.read()).finish_reason
    if answer.num_completion_tokens < num_tokens:
        raise InvalidRequestError(
            f"resume.num_tokens is {num_tokens}, and the whole answer has {answer.num_completion_tokens}; count "
            "token_ids of all messages that came",
            param="resume",
        )
    return reason


def shorter(*timeouts_s: float | None) -> float | None:
    """The shortest of several times, of which those that are None have no end."""
    return min((timeout_s for timeout_s in timeouts_s if timeout_s is not None), default=None)
