"""Whether an event of a streamed answer has text: without decoding it where its bytes are proof, as nearly always.

Inside a JSON string every quote is escaped. So the bytes `"content":"` are a key and the start of its value, whatever
text the model writes.
"""

from typing import Any

KEY = b'"content":"'
EMPTY = KEY + b'"'
NUM_EMPTY_BYTES = len(EMPTY)
# What a delta may show of generated tokens: text, thoughts (vLLM, SGLang; newer vLLM), a refusal (OpenAI).
TEXT_FIELDS = ("content", "reasoning_content", "reasoning", "refusal")


def is_plain_text(data: bytes) -> bool:
    """Whether an event has text and nothing else to be read: no finish reason, no usage, no error.

    True for such events of OpenAI, vLLM, SGLang and Baton. False also when the bytes alone do not tell: then the
    event has to be decoded.
    """
    key_at = data.find(KEY)
    return (
        key_at >= 0
        and data.find(EMPTY, key_at, key_at + NUM_EMPTY_BYTES) < 0
        and (b'"finish_reason":null' in data or b'"finish_reason"' not in data)
        and (b'"usage"' not in data or b'"usage":null' in data)
        and b'"error"' not in data
    )


def has_text(delta: dict[str, Any]) -> bool:
    """Whether a decoded delta shows generated tokens: text, thoughts or a call of a tool."""
    return any(delta.get(field) for field in TEXT_FIELDS) or bool(delta.get("tool_calls"))
