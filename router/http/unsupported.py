"""The known request fields whose feature does not exist here. They are refused by name, never silently ignored.

A *neutral* value, one that asks for nothing, is accepted, since clients send defaults. Fields nobody knows are
the request model's to refuse.
"""

from collections.abc import Callable, Mapping
from typing import Any

from core.errors import InvalidRequestError
from router.describe import describe

Neutral = Callable[[Any], bool]


def is_number(expected: float) -> Neutral:
    """A test for a JSON number equal to `expected`; `true` is no number."""
    return lambda value: isinstance(value, int | float) and not isinstance(value, bool) and value == expected


def is_one_of(*expected: object) -> Neutral:
    """A test for one of some strings or booleans."""
    return lambda value: any(value is e or (isinstance(value, str) and value == e) for e in expected)


def is_empty(value: object) -> bool:
    """Whether it is `[]` or `{}`."""
    return value in ([], {})


def is_never(_value: object) -> bool:
    """For a field without a neutral value but null."""
    return False


def is_text_format(value: object) -> bool:
    """Whether it is `{"type": "text"}`, the default of `response_format`."""
    return value == {"type": "text"}


OPENAI_FIELDS: Mapping[str, Neutral] = {
    "audio": is_never,
    "function_call": is_one_of("none"),
    "functions": is_empty,
    "modalities": lambda value: value == ["text"],
    "moderation": is_never,
    "n": is_number(1),
    "parallel_tool_calls": is_never,
    "prediction": is_never,
    "prompt_cache_options": is_never,
    "prompt_cache_retention": is_never,
    "reasoning_effort": is_never,
    "response_format": is_text_format,
    "service_tier": is_one_of("auto", "default"),
    "store": is_one_of(False),
    "tool_choice": is_one_of("none"),
    "tools": is_empty,
    "verbosity": is_never,
    "web_search_options": is_never,
}
# What vLLM's clients send on top; the neutral values are vLLM's defaults.
VLLM_FIELDS: Mapping[str, Neutral] = {
    "add_generation_prompt": is_one_of(True),
    "add_special_tokens": is_one_of(False),
    "best_of": is_number(1),
    "chat_template": is_never,
    "chat_template_kwargs": is_empty,
    "continue_final_message": is_one_of(False),
    "echo": is_one_of(False),
    "include_stop_str_in_output": is_one_of(False),
    "length_penalty": is_number(1),
    "prompt_logprobs": is_never,
    "skip_special_tokens": is_one_of(True),
    "structured_outputs": is_never,
    "truncate_prompt_tokens": is_never,
    "use_beam_search": is_one_of(False),
}
REQUEST_FIELDS: Mapping[str, Neutral] = {**OPENAI_FIELDS, **VLLM_FIELDS}
# `null` and empty ones come back when a client appends an answer's message to its next request.
MESSAGE_FIELDS: Mapping[str, Neutral] = {
    "annotations": is_empty,
    "audio": is_never,
    "function_call": is_never,
    "name": is_never,
    "reasoning": is_never,
    "reasoning_content": is_never,
    "refusal": is_never,
    "tool_call_id": is_never,
    "tool_calls": is_empty,
}


def without_unsupported(
    fields: Mapping[str, Any], unsupported: Mapping[str, Neutral], prefix: str = ""
) -> dict[str, Any]:
    """`fields` without the unsupported ones that ask for nothing; `prefix` is put before names in messages.

    Raises:
        InvalidRequestError: an unsupported field asks for something.
    """
    kept = {}
    for name, value in fields.items():
        neutral = unsupported.get(name)
        if neutral is None:
            kept[name] = value
        elif value is not None and not neutral(value):
            raise InvalidRequestError(
                f"{prefix}{name} ({describe(value)}) is not supported by this server; leave it out",
                param=f"{prefix}{name}",
            )
    return kept
