"""From a prompt in token ids to a `GenerationRequest`: model, defaults and limits, the same for HTTP and gRPC."""

import math
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from core.errors import ContextLengthError, InvalidRequestError, UnknownModelError
from core.request import GenerationRequest
from core.sampling import SEED_BITS, SamplingParams
from router.auth.caller import current_caller
from router.auth.tenant_salt import tenant_salt
from router.describe import describe
from router.text.bad_words import bad_word_token_ids
from router.text.model_files import FLOAT_DEFAULTS
from router.text.tokenizer import TextCodec

MAX_CACHE_SALT_CHARS = 256  # a random key takes 32; it goes with every assignment
MAX_PARTS = 4096  # messages and parts of their contents; checking them holds up the event loop, 2 us each
MAX_STOPS = 16  # stop strings of a request; OpenAI allows 4, vLLM's clients send more
MAX_STOP_CHARS = 256  # every new character is compared with every stop string
MAX_STOP_TOKEN_IDS = 64
# A table of waiting work has an entry for each priority of each tenant, and is walked with every request.
MIN_PRIORITY, MAX_PRIORITY = -100, 100
NAME = re.compile(r"[A-Za-z0-9._~-]{1,128}")  # of a request: goes into a path as it is (RFC 3986, unreserved)
# Bad words are tokenized on the event loop: so many of this length take 10 ms.
MAX_BAD_WORDS = 300
MAX_BAD_WORD_CHARS = 64


@dataclass(frozen=True, slots=True)
class SamplingOptions:
    """What a client said about sampling; None takes the model's default, and for the seed a random one.

    Attributes are those of `SamplingParams`, but that bad words are texts.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    bad_words: Sequence[str] = ()
    min_tokens: int | None = None
    logprobs: int | None = None


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
        priority: int = 0,
        timeout_s: float | None = None,
        timeout_param: str = "timeout_s",
        name: str = "",
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
            cache_salt: KV is shared with requests of the same salt, and of the caller's tenant, only.
            priority: requests with a lower number go first; `MIN_PRIORITY` to `MAX_PRIORITY`.
            timeout_s: seconds until the request fails if it has not ended; None for the router's limit.
            timeout_param: what the client calls that, for messages.
            name: what the client calls the request, to abort it by; empty for nothing.

        Raises:
            ContextLengthError: the prompt, or it and the tokens asked for, do not fit.
            InvalidRequestError: another value is out of range; names it.
        """
        self._check_ids(prompt, prompt_param)
        room = self._room(len(prompt), prompt_param)
        stops = list(stop_token_ids)
        if len(stops) > MAX_STOP_TOKEN_IDS:
            raise InvalidRequestError(
                f"stop_token_ids has {len(stops)} tokens; at most {MAX_STOP_TOKEN_IDS} are accepted",
                param="stop_token_ids",
            )
        self._check_ids(stops, "stop_token_ids")
        if len(cache_salt) > MAX_CACHE_SALT_CHARS:
            raise InvalidRequestError(
                f"cache_salt has {len(cache_salt)} characters; at most {MAX_CACHE_SALT_CHARS} are accepted",
                param="cache_salt",
            )
        _check_name(name)
        _check_priority(priority)
        if timeout_s is not None and not 0 < timeout_s < math.inf:
            raise InvalidRequestError(
                f"{timeout_param} is {timeout_s:g}; it must be a positive number of seconds", param=timeout_param
            )
        end_of_sequence = frozenset() if ignore_eos else self._codec.eos_token_ids
        num_tokens = self._max_tokens(room, len(prompt), max_tokens, max_tokens_param)
        tenant = current_caller().tenant
        return GenerationRequest(
            request_id=request_id,
            prompt=tuple(prompt),
            max_tokens=num_tokens,
            sampling=self._sampling(sampling, num_tokens),
            stop_token_ids=end_of_sequence.union(stops),
            cache_salt=tenant_salt(tenant, cache_salt),
            tenant=tenant,
            priority=priority,
            timeout_s=timeout_s,
            name=name,
        )

    def _sampling(self, options: SamplingOptions, max_tokens: int) -> SamplingParams:
        default = self._codec.default_sampling
        said = {name: getattr(options, name) for name in FLOAT_DEFAULTS}
        self._check_ids(list(options.logit_bias), "logit_bias")
        if options.min_tokens is not None and options.min_tokens > max_tokens:
            raise InvalidRequestError(
                f"min_tokens is {describe(options.min_tokens)} but the answer has at most {max_tokens} tokens; "
                "ask for fewer, or raise the limit",
                param="min_tokens",
            )
        return SamplingParams(
            **{name: getattr(default, name) if value is None else value for name, value in said.items()},
            top_k=min(default.top_k if options.top_k is None else options.top_k, self._codec.vocab_size),
            # Drawn here, so that another worker can go on with a request whose worker died.
            seed=secrets.randbits(SEED_BITS) if options.seed is None else options.seed,
            logit_bias=tuple(sorted(options.logit_bias.items())),
            bad_words=self._bad_words(options.bad_words),
            min_tokens=options.min_tokens or 0,
            logprobs=options.logprobs,
        )

    def _bad_words(self, words: Sequence[str]) -> tuple[tuple[int, ...], ...]:
        if len(words) > MAX_BAD_WORDS:
            raise InvalidRequestError(
                f"bad_words has {len(words)} words; at most {MAX_BAD_WORDS} are accepted", param="bad_words"
            )
        for word in words:
            if not word.strip() or len(word) > MAX_BAD_WORD_CHARS:
                raise InvalidRequestError(
                    f"bad_words has {describe(word)}; a word has 1 to {MAX_BAD_WORD_CHARS} characters, not all blank",
                    param="bad_words",
                )
        sequences = bad_word_token_ids(self._codec, words)
        self._check_ids([token_id for sequence in sequences for token_id in sequence], "bad_words")
        return sequences

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


def _check_priority(priority: int) -> None:
    if not MIN_PRIORITY <= priority <= MAX_PRIORITY:
        raise InvalidRequestError(
            f"priority is {describe(priority)}; it must be {MIN_PRIORITY} to {MAX_PRIORITY}, lower going first",
            param="priority",
        )


def _check_name(name: str) -> None:
    if name and not NAME.fullmatch(name):
        raise InvalidRequestError(
            f"request_id is {describe(name)}; it must have 1 to 128 letters, digits and characters of -._~",
            param="request_id",
        )
