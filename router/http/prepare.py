"""From a checked HTTP request to a `GenerationRequest`: template, tokens, defaults, limits. Does not submit it."""

import asyncio
from dataclasses import dataclass

from core.request import GenerationRequest
from router.http.chat_request import ChatCompletionRequest, content_texts
from router.intake import Intake, SamplingOptions
from router.text.tokenizer import TextCodec

INLINE_CHARS = 16 * 1024  # takes about 5 ms to tokenize; a longer text goes to a thread


@dataclass(frozen=True, slots=True)
class PreparedChat:
    """A chat request, ready to be submitted, and how its answer is to be sent.

    Attributes:
        model: the name the client used.
        generation: what to generate.
        stops: strings that end the answer.
        stream: whether to send the answer while it is generated.
        include_usage: whether a stream ends with the token counts.
        continuous_usage: whether every chunk of a stream carries the token counts so far.
    """

    model: str
    generation: GenerationRequest
    stops: tuple[str, ...]
    stream: bool
    include_usage: bool
    continuous_usage: bool


class ChatPreparer:
    """Prepares chat requests for one model."""

    def __init__(self, codec: TextCodec, intake: Intake) -> None:
        """The codec renders and tokenizes; the intake checks what depends on the model."""
        self._codec = codec
        self._intake = intake

    async def prepare(self, request_id: str, chat: ChatCompletionRequest) -> PreparedChat:
        """Renders, tokenizes and checks what depends on the model. A long prompt does so off the event loop.

        Raises:
            UnknownModelError: the model is not served here.
            ContextLengthError: the prompt, or it and the tokens asked for, do not fit.
            InvalidRequestError: a token is not in the vocabulary, a value does not go with the length of the answer,
                or the template refused the messages.
        """
        self._intake.check_model(chat.model)
        generation = self._intake.request(
            request_id,
            await self._encode(chat),
            prompt_param="messages",
            sampling=SamplingOptions(
                temperature=chat.temperature,
                top_p=chat.top_p,
                top_k=None if chat.top_k is None else max(chat.top_k, 0),  # vLLM's -1 is off, too
                seed=chat.seed,
                min_p=chat.min_p,
                repetition_penalty=chat.repetition_penalty,
                presence_penalty=chat.presence_penalty,
                frequency_penalty=chat.frequency_penalty,
                logit_bias=chat.biases,
                bad_words=chat.bad_words or (),
                min_tokens=chat.min_tokens,
                logprobs=chat.num_logprobs,
            ),
            max_tokens=chat.max_tokens if chat.max_completion_tokens is None else chat.max_completion_tokens,
            max_tokens_param="max_tokens" if chat.max_completion_tokens is None else "max_completion_tokens",
            stop_token_ids=chat.stop_token_ids or (),
            ignore_eos=bool(chat.ignore_eos),
            cache_salt=chat.cache_salt or "",
            priority=chat.priority or 0,
            timeout_s=chat.timeout,
            timeout_param="timeout",
            name=chat.request_id or "",
        )
        options = chat.stream_options
        return PreparedChat(
            model=chat.model,
            generation=generation,
            stops=chat.stops,
            stream=bool(chat.stream),
            include_usage=bool(options and options.include_usage),
            continuous_usage=bool(options and options.continuous_usage_stats),
        )

    async def _encode(self, chat: ChatCompletionRequest) -> list[int]:
        # Parts are joined as vLLM does for templates that expect a string.
        messages = [
            {
                "role": "system" if message.role == "developer" else message.role,
                "content": "\n".join(content_texts(message)),
            }
            for message in chat.messages
        ]
        if chat.num_chars <= INLINE_CHARS:
            return self._codec.encode_chat(messages)
        return await asyncio.to_thread(self._codec.encode_chat, messages)
