"""The gRPC client API: one prompt in, a stream of tokens and text out."""

import asyncio
import logging
import uuid
from collections.abc import Sequence

from baton.v1 import generate_pb2, generate_pb2_grpc

from core.errors import BatonError, InternalError, InvalidRequestError
from core.request import GenerationRequest
from router import wire
from router.describe import describe
from router.generation import Dispatcher
from router.intake import MAX_PARTS, MAX_STOP_CHARS, MAX_STOPS, Intake, SamplingOptions
from router.observe.call import name_call
from router.rpc.context import Context, abort
from router.rpc.timing import tell_timing
from router.text.stream import TextDelta, TextGeneration
from router.text.tokenizer import TextCodec

CHAT_ROLES = ("system", "user", "assistant")
SCALARS = tuple(field.name for field in generate_pb2.SamplingOptions.DESCRIPTOR.fields if field.has_presence)

logger = logging.getLogger(__name__)


class GenerateService(generate_pb2_grpc.GenerateServiceServicer):
    """Serves `GenerateService` on the router's event loop.

    Args:
        dispatcher: has answers generated.
        codec: the model's tokenizer and chat template.
        intake: checks requests.
    """

    def __init__(self, dispatcher: Dispatcher, codec: TextCodec, intake: Intake) -> None:
        self._dispatcher = dispatcher
        self._codec = codec
        self._intake = intake

    async def Generate(  # noqa: N802 - the name is the service's
        self, request: generate_pb2.GenerateRequest, context: Context
    ) -> None:
        """Streams one answer; a cancelled call stops the work."""
        try:
            prepared = await self._prepare(request)
            async with self._open(prepared, request.stop) as answer:
                await self._send(answer, len(prepared.prompt), context)
        except BatonError as error:
            await abort(context, error)
        except Exception as error:
            logger.exception("a defect while answering over gRPC")
            await abort(context, InternalError(f"{type(error).__name__} in the server; see its log"))

    async def _send(self, answer: TextGeneration, num_prompt_tokens: int, context: Context) -> None:
        # Written, not yielded: a call that is cancelled while it writes unwinds this very task.
        delta = await answer.read()
        while delta.finish_reason is None:
            await context.write(delta_to_proto(delta))
            delta = await answer.read()
        last = delta_to_proto(delta)
        last.finish_reason = wire.FINISH_TO_PROTO[delta.finish_reason]
        last.usage.prompt_tokens = num_prompt_tokens
        last.usage.completion_tokens = answer.num_completion_tokens
        last.usage.cached_tokens = answer.num_cached_tokens
        await context.write(last)
        tell_timing(context)

    def _open(self, request: GenerationRequest, stops: Sequence[str]) -> TextGeneration:
        return TextGeneration(
            self._dispatcher.submit(request),
            self._codec.detokenizer(),
            stops=tuple(stops),
            stop_token_ids=request.stop_token_ids,
            min_tokens=request.sampling.min_tokens,
        )

    async def _prepare(self, request: generate_pb2.GenerateRequest) -> GenerationRequest:
        request_id = uuid.uuid4().hex
        name_call(request_id)
        self._intake.check_model(request.model)
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


def delta_to_proto(delta: TextDelta) -> generate_pb2.GenerateResponse:
    """What arrived since the last message; without what ends the answer."""
    logprobs = [wire.logprobs_to_proto(each) for each in delta.logprobs]
    return generate_pb2.GenerateResponse(token_ids=delta.token_ids, text=delta.text, logprobs=logprobs)
