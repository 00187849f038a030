"""From a prompt in token ids to a `GenerationRequest`: model, defaults and limits, the same for HTTP and gRPC."""

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from core.errors import ContextLengthError, InvalidRequestError, UnknownModelError
from core.request import GenerationRequest
from core.sampling import MAX_SEED, SamplingParams
from router.describe import describe
from router.text.tokenizer import TextCodec

MAX_CACHE_SALT_CHARS = 256  # a random key takes 32; it goes with every assignment
MAX_STOPS = 16  # stop strings of a request; OpenAI allows 4, vLLM's clients send more


@dataclass(frozen=True, slots=True)
class SamplingOptions:
    """What a client said about sampling; None takes the model's default, and for the seed a random one."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None


class Intake:
    """Checks requests for one model.

    Args:
        codec: the model's tokenizer and defaults.
        served_model_name: the only name clients may use.
        max_model_len: most tokens of prompt plus answer.
    """

    def __init__(self, codec: TextCodec, served_model_name: str, max_model_len: int) -> None:
        self._codec = codec
        self._served_model_name = served_model_name
        self._max_model_len = max_model_len

    def check_model(self, model: str) -> None:
        """Makes sure that the model is served here.

        Raises:
            UnknownModelError: it is not; the message says which is.
        """
        if model != self._served_model_name:
            raise UnknownModelError(
                f"model {describe(model)} is not served here; use {self._served_model_name!r}", param="model"
            )

    def request(
        self,
        request_id: str,
        prompt: Sequence[int],
        *,
        prompt_param: str,
        sampling: SamplingOptions,
        max_tokens: int | None = None,
        max_tokens_param: str = "max_tokens",
        stop_token_ids: Iterable[int] = (),
        ignore_eos: bool = False,
        cache_salt: str = "",
    ) -> GenerationRequest:
        """A request that workers can serve.

        Args:
            request_id: unique over the fleet.
            prompt: token ids.
            prompt_param: what the client calls the prompt, for messages.
            sampling: what the client said.
            max_tokens: tokens to generate at most; None for as many as fit the context.
            max_tokens_param: what the client calls that, for messages.
            stop_token_ids: token ids that end the answer, besides the model's own.
            ignore_eos: whether the model's own do not end it.
            cache_salt: KV is shared with requests of the same salt only.

        Raises:
            ContextLengthError: the prompt, or it and the tokens asked for, do not fit.
            InvalidRequestError: another value is out of range; names it.
        """
        self._check_ids(prompt, prompt_param)
        room = self._room(len(prompt), prompt_param)
        stops = list(stop_token_ids)
        self._check_ids(stops, "stop_token_ids")
        if len(cache_salt) > MAX_CACHE_SALT_CHARS:
            raise InvalidRequestError(
                f"cache_salt has {len(cache_salt)} characters; at most {MAX_CACHE_SALT_CHARS} are accepted",
                param="cache_salt",
            )
        end_of_sequence = frozenset() if ignore_eos else self._codec.eos_token_ids
        return GenerationRequest(
            request_id=request_id,
            prompt=tuple(prompt),
            max_tokens=self._max_tokens(room, len(prompt), max_tokens, max_tokens_param),
            sampling=self._sampling(sampling),
            stop_token_ids=end_of_sequence.union(stops),
            cache_salt=cache_salt,
        )

    def _sampling(self, options: SamplingOptions) -> SamplingParams:
        default = self._codec.default_sampling
        return SamplingParams(
            temperature=default.temperature if options.temperature is None else options.temperature,
            top_p=default.top_p if options.top_p is None else options.top_p,
            top_k=min(default.top_k if options.top_k is None else options.top_k, self._codec.vocab_size),
            # Drawn here, so that another worker can go on with a request whose worker died.
            seed=secrets.randbelow(MAX_SEED + 1) if options.seed is None else options.seed,
        )

    def _check_ids(self, token_ids: Sequence[int], param: str) -> None:
        vocab_size = self._codec.vocab_size
        for token_id in (min(token_ids, default=0), max(token_ids, default=0)):
            if not 0 <= token_id < vocab_size:
                raise InvalidRequestError(
                    f"{param} has token {describe(token_id)}; this model's tokens are 0 to {vocab_size - 1}",
                    param=param,
                )

    def _room(self, num_prompt_tokens: int, param: str) -> int:
        """Tokens that fit after the prompt."""
        if num_prompt_tokens < 1:
            raise InvalidRequestError("the prompt has no tokens; send at least one", param=param)
        room = self._max_model_len - num_prompt_tokens
        if room < 1:
            raise ContextLengthError(
                f"the prompt has {num_prompt_tokens} tokens; this model's context is {self._max_model_len} tokens "
                f"for prompt and answer: shorten {param}",
                param=param,
            )
        return room

    def _max_tokens(self, room: int, num_prompt_tokens: int, asked: int | None, param: str) -> int:
        if asked is None:
            return room
        if asked < 1:
            raise InvalidRequestError(f"{param} is {describe(asked)}; it must be at least 1", param=param)
        if asked > room:
            raise ContextLengthError(
                f"{param} is {describe(asked)} and the prompt has {num_prompt_tokens} tokens; this model's context "
                f"is {self._max_model_len} tokens for both: ask for at most {room}",
                param=param,
            )
        return asked
