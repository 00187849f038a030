"""The body of `POST /v1/chat/completions`: what is accepted, with which types. Not what it means for the model.

Fields and their meaning are OpenAI's (API reference, "Create chat completion"); `top_k`, `min_p`,
`repetition_penalty`, `bad_words`, `min_tokens`, `ignore_eos`, `stop_token_ids`, `cache_salt`, `priority`,
`request_id` and `stream_options.continuous_usage_stats` are vLLM's; `timeout` is ours. Types are strict: `true` is
not 1, "1" is not 1, and NaN is not a number.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError

from core.errors import InvalidRequestError
from core.sampling import (
    MAX_BIAS,
    MAX_BIASED_TOKENS,
    MAX_LOGPROBS,
    MAX_PENALTY,
    MAX_REPETITION_PENALTY,
    MAX_SEED,
    MAX_TEMPERATURE,
    MIN_REPETITION_PENALTY,
)
from router.describe import describe
from router.http.invalid_field import invalid_field
from router.http.unsupported import MESSAGE_FIELDS, REQUEST_FIELDS, without_unsupported
from router.intake import (
    MAX_BAD_WORDS,
    MAX_PARTS,
    MAX_PRIORITY,
    MAX_STOP_CHARS,
    MAX_STOP_TOKEN_IDS,
    MAX_STOPS,
    MIN_PRIORITY,
)

_TOKEN_ID = re.compile(r"0|[1-9][0-9]{0,9}")  # whether there is such a token is not decided here
_STRICT = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


def _tag(value: object) -> str:
    # In angle brackets, so that a tag in an error's location is told from a field (see `router.http.invalid_field`).
    return "<string>" if isinstance(value, str) else "<array>"


type_of_string_or_array = Discriminator(_tag)
Bias = Annotated[float, Field(ge=-MAX_BIAS, le=MAX_BIAS)]
Penalty = Annotated[float, Field(ge=-MAX_PENALTY, le=MAX_PENALTY)]
Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARS)]


class TextPart(BaseModel):
    """A piece of a message's content. Images, audio and files are not supported."""

    model_config = _STRICT
    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """One message of the conversation."""

    model_config = _STRICT
    role: Literal["system", "developer", "user", "assistant"] = Field(description="`developer` is read as `system`.")
    content: Annotated[
        Annotated[str, Tag("<string>")]
        | Annotated[list[TextPart], Field(min_length=1, fail_fast=True), Tag("<array>")],
        type_of_string_or_array,
    ]


class StreamOptions(BaseModel):
    """What a stream carries besides text."""

    model_config = _STRICT
    include_usage: bool | None = Field(None, description="Send the token counts in a last chunk without choices.")
    continuous_usage_stats: bool | None = Field(None, description="Send the token counts so far in every chunk.")
    include_obfuscation: Literal[False] | None = None


class ChatCompletionRequest(BaseModel):
    """A request for one answer to a conversation.

    Known OpenAI fields that are not listed are refused with status 400 unless they ask for nothing (null, `n` 1, no
    tools, ...); unknown fields always are.
    """

    model_config = _STRICT
    model: str = Field(description="One of `GET /v1/models`.")
    messages: list[ChatMessage] = Field(min_length=1, fail_fast=True)
    stream: bool | None = Field(None, description="Send the answer as server-sent events while it is generated.")
    stream_options: StreamOptions | None = Field(None, description="Only with `stream`.")
    temperature: float | None = Field(
        None, ge=0, le=MAX_TEMPERATURE, description="0 is greedy. Default: the model's generation_config, else 1."
    )
    top_p: float | None = Field(None, gt=0, le=1, description="Default: the model's generation_config, else 1.")
    top_k: int | None = Field(
        None, ge=-1, description="0 or -1 keeps all. Default: the model's generation_config, else 0."
    )
    min_p: float | None = Field(
        None, ge=0, le=1, description="Keeps tokens at least this times as likely as the likeliest. 0 keeps all."
    )
    presence_penalty: Penalty | None = Field(
        None, description="Subtracted from the logits of tokens in the answer. Default: the model's, else 0."
    )
    frequency_penalty: Penalty | None = Field(
        None, description="The same, times how often the token is in the answer. Default: the model's, else 0."
    )
    repetition_penalty: float | None = Field(
        None,
        ge=MIN_REPETITION_PENALTY,
        le=MAX_REPETITION_PENALTY,
        description="Makes tokens of prompt and answer less likely above 1, and more likely below.",
    )
    logit_bias: Annotated[dict[str, Bias], Field(max_length=MAX_BIASED_TOKENS)] | None = Field(
        None, description="Added to logits, by token id."
    )
    bad_words: Annotated[list[str], Field(max_length=MAX_BAD_WORDS)] | None = Field(
        None, description="Words that are not in the answer, at its start or after a space."
    )
    logprobs: bool | None = Field(
        None, description="Return the log-probability of each token, before temperature, penalties and filters."
    )
    top_logprobs: int | None = Field(
        None, ge=0, le=MAX_LOGPROBS, description="Return those of so many of the likeliest tokens, too."
    )
    min_tokens: int | None = Field(
        None, ge=0, description="Neither stop tokens nor `stop` end the answer before so many tokens."
    )
    max_tokens: int | None = Field(None, ge=1, description="Older name of `max_completion_tokens`.")
    max_completion_tokens: int | None = Field(
        None, ge=1, description="Most tokens to generate; prompt plus this must fit. Default: all that fit."
    )
    stop: (
        Annotated[
            Annotated[Stop, Tag("<string>")] | Annotated[list[Stop], Field(max_length=MAX_STOPS), Tag("<array>")],
            type_of_string_or_array,
        ]
        | None
    ) = Field(None, description="Text that ends the answer and is not part of it.")
    stop_token_ids: list[int] | None = Field(
        None, max_length=MAX_STOP_TOKEN_IDS, description="Tokens that end the answer and are not part of it."
    )
    ignore_eos: bool | None = Field(None, description="Go on after the model's end-of-sequence token.")
    seed: int | None = Field(
        None, ge=0, le=MAX_SEED, description="The same request with the same seed samples the same way."
    )
    cache_salt: str | None = Field(
        None,
        min_length=1,
        description="Share cached prompts with requests of the same salt only. Default: with everybody's.",
    )
    priority: Annotated[int, Field(ge=MIN_PRIORITY, le=MAX_PRIORITY)] | None = Field(
        None, description="Requests with a lower number go first, whoever they are of. Default: 0."
    )
    timeout: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Seconds until the request fails with status 504; the server has a limit, too."
    )
    request_id: str | None = Field(
        None, min_length=1, description="Your name for the request, to abort it by with `DELETE`."
    )
    user: str | None = Field(None, description="Accepted; has no effect.")
    safety_identifier: str | None = Field(None, description="Accepted; has no effect.")
    prompt_cache_key: str | None = Field(None, description="Accepted; has no effect.")
    metadata: dict[str, Any] | None = Field(None, description="Accepted; has no effect.")

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def num_logprobs(self) -> int | None:
        """How many alternatives to return with each token's log-probability; None to return none of both."""
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def biases(self) -> dict[int, float]:
        """The logit biases by token id."""
        return {int(token_id): bias for token_id, bias in (self.logit_bias or {}).items()}

    @property
    def num_chars(self) -> int:
        """Characters of text in all messages."""
        return sum(len(text) for message in self.messages for text in content_texts(message))


def content_texts(message: ChatMessage) -> list[str]:
    """The text parts of a message; a plain string is one part."""
    content = message.content
    return [content] if isinstance(content, str) else [part.text for part in content]


def parse_chat_request(body: dict[str, Any]) -> ChatCompletionRequest:
    """Checks a decoded body and types it.

    Raises:
        InvalidRequestError: naming the first field that is missing, unknown, unsupported or of a wrong type or
            range, with its value.
    """
    fields = without_unsupported(body, REQUEST_FIELDS)
    messages = fields.get("messages")
    if isinstance(messages, list):
        _check_num_parts(messages)
        fields["messages"] = [_supported_message(message, index) for index, message in enumerate(messages)]
    try:
        request = ChatCompletionRequest.model_validate(fields)
    except ValidationError as error:
        raise invalid_field(error) from None
    _check_together(request)
    return request


def _check_num_parts(messages: list[object]) -> None:
    contents = [message.get("content") for message in messages if isinstance(message, dict)]
    num_parts = len(messages) + sum(len(content) for content in contents if isinstance(content, list))
    if num_parts > MAX_PARTS:
        raise InvalidRequestError(
            f"messages has {num_parts} messages and parts of contents; at most {MAX_PARTS} are accepted: join some",
            param="messages",
        )


def _supported_message(message: object, index: int) -> object:
    if not isinstance(message, dict):
        return message
    return without_unsupported(message, MESSAGE_FIELDS, f"messages[{index}].")


def _check_together(request: ChatCompletionRequest) -> None:
    for key in request.logit_bias or ():
        if not _TOKEN_ID.fullmatch(key):
            raise InvalidRequestError(
                f"logit_bias has the key {describe(key)}; its keys are token ids, such as '42'", param="logit_bias"
            )
    if request.stream_options is not None and not request.stream:
        raise InvalidRequestError("stream_options is only possible with stream: true", param="stream_options")
    if request.top_logprobs and not request.logprobs:
        raise InvalidRequestError(
            f"top_logprobs is {request.top_logprobs}; it is only possible with logprobs: true", param="top_logprobs"
        )
    limits = {request.max_tokens, request.max_completion_tokens} - {None}
    if len(limits) > 1:
        raise InvalidRequestError(
            f"max_tokens is {request.max_tokens} but max_completion_tokens is {request.max_completion_tokens}; "
            "they mean the same, send one",
            param="max_tokens",
        )
