"""The answers of `POST /v1/chat/completions`, in OpenAI's shapes. Streamed chunks are encoded by `chunk_encoder`."""

from typing import Literal

from pydantic import BaseModel, Field

Finish = Literal["stop", "length"]


class PromptTokensDetails(BaseModel):
    """What became of the prompt's tokens."""

    cached_tokens: int = Field(description="Found in the prefix cache, not computed; 0 until the first token.")


class Usage(BaseModel):
    """Token counts of one request."""

    prompt_tokens: int
    completion_tokens: int = Field(description="The end-of-sequence token counts.")
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails

    @classmethod
    def of(cls, prompt_tokens: int, completion_tokens: int, cached_tokens: int) -> "Usage":
        """The usage for a prompt, of which so many tokens were cached, and an answer."""
        return cls(
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            total_tokens=prompt_tokens + completion_tokens,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=cached_tokens),
        )


class AnswerMessage(BaseModel):
    """The answer."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class TopLogprob(BaseModel):
    """A token and the logarithm of its probability."""

    token: str = Field(description="Its text; incomplete characters are replaced.")
    logprob: float = Field(description="At least -9999.")
    bytes: list[int] = Field(description="The UTF-8 bytes it stands for.")


class TokenLogprob(TopLogprob):
    """A token of the answer and the likeliest tokens in its place."""

    top_logprobs: list[TopLogprob]


class ChoiceLogprobs(BaseModel):
    """The tokens of an answer or a chunk; in a chunk those whose text it completes."""

    content: list[TokenLogprob] = Field(description="As many in all as `usage.completion_tokens` says.")
    refusal: None = None


class Choice(BaseModel):
    """The one choice of a completion."""

    index: Literal[0] = 0
    message: AnswerMessage
    logprobs: ChoiceLogprobs | None = Field(description="Null unless asked for.")
    finish_reason: Finish


class ChatCompletion(BaseModel):
    """A whole answer."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int = Field(description="Seconds since 1970.")
    model: str
    choices: list[Choice]
    usage: Usage


class Delta(BaseModel):
    """What is new in a chunk; `role` only in the first."""

    role: Literal["assistant"] | None = None
    content: str | None = None


class ChunkChoice(BaseModel):
    """The one choice of a chunk."""

    index: Literal[0] = 0
    delta: Delta
    logprobs: ChoiceLogprobs | None = Field(description="Null unless asked for.")
    finish_reason: Finish | None = Field(description="Set in the last chunk with a choice.")


class ChatCompletionChunk(BaseModel):
    """One `data:` event of a stream, which ends with `data: [DONE]`."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int = Field(description="Seconds since 1970.")
    model: str
    choices: list[ChunkChoice] = Field(description="Empty in the chunk that only carries `usage`.")
    usage: Usage | None = None
