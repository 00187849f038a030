"""From a checked HTTP request to a `GenerationRequest`: template, tokens, defaults, limits. Does not submit it."""

import asyncio
import secrets
from dataclasses import dataclass

from core.errors import ContextLengthError, InvalidRequestError, UnknownModelError
from core.request import GenerationRequest
from core.sampling import MAX_SEED, SamplingParams
from router.http.chat_request import ChatCompletionRequest, content_texts
from router.http.describe import describe
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

    def __init__(self, codec: TextCodec, served_model_name: str, max_model_len: int) -> None:
        """`max_model_len` is the most tokens of prompt plus answer."""
        self._codec = codec
        self._served_model_name = served_model_name
        self._max_model_len = max_model_len

    async def prepare(self, request_id: str, chat: ChatCompletionRequest) -> PreparedChat:
        """Renders, tokenizes and checks what depends on the model. A long prompt does so off the event loop.

        Raises:
            UnknownModelError: the model is not served here.
            ContextLengthError: the prompt, or it and the tokens asked for, do not fit.
            InvalidRequestError: a stop token is not in the vocabulary, or the template refused the messages.
        """
        if chat.model != self._served_model_name:
            raise UnknownModelError(
                f"model {describe(chat.model)} is not served here; use {self._served_model_name!r}", param="model"
            )
        stop_token_ids = self._stop_token_ids(chat)
        sampling = self._sampling(chat)
        prompt = await self._encode(chat)
        generation = GenerationRequest(
            request_id=request_id,
            prompt=tuple(prompt),
            max_tokens=self._max_tokens(chat, len(prompt)),
            sampling=sampling,
            stop_token_ids=stop_token_ids,
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

    def _sampling(self, chat: ChatCompletionRequest) -> SamplingParams:
        default = self._codec.default_sampling
        return SamplingParams(
            temperature=default.temperature if chat.temperature is None else chat.temperature,
            top_p=default.top_p if chat.top_p is None else chat.top_p,
            top_k=default.top_k if chat.top_k is None else max(chat.top_k, 0),
            # Drawn here, so that another worker can go on with a request whose worker died.
            seed=secrets.randbelow(MAX_SEED + 1) if chat.seed is None else chat.seed,
        )

    def _stop_token_ids(self, chat: ChatCompletionRequest) -> frozenset[int]:
        vocab_size = self._codec.vocab_size
        for token_id in chat.stop_token_ids or ():
            if not 0 <= token_id < vocab_size:
                raise InvalidRequestError(
                    f"stop_token_ids has {describe(token_id)}; this model's tokens are 0 to {vocab_size - 1}",
                    param="stop_token_ids",
                )
        end_of_sequence = frozenset() if chat.ignore_eos else self._codec.eos_token_ids
        return end_of_sequence.union(chat.stop_token_ids or ())

    def _max_tokens(self, chat: ChatCompletionRequest, num_prompt_tokens: int) -> int:
        room = self._max_model_len - num_prompt_tokens
        if room < 1:
            raise ContextLengthError(
                f"the prompt has {num_prompt_tokens} tokens; this model's context is {self._max_model_len} tokens "
                "for prompt and answer: shorten the messages",
                param="messages",
            )
        param = "max_tokens" if chat.max_completion_tokens is None else "max_completion_tokens"
        asked = chat.max_tokens if chat.max_completion_tokens is None else chat.max_completion_tokens
        if asked is not None and asked > room:
            raise ContextLengthError(
                f"{param} is {describe(asked)} and the prompt has {num_prompt_tokens} tokens; this model's context "
                f"is {self._max_model_len} tokens for both: ask for at most {room}",
                param=param,
            )
        return room if asked is None else asked
