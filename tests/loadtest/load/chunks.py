"""Events as servers write them, and records of requests."""

import json
from array import array
from typing import Any

from loadtest.load.record import RequestRecord

OPENAI = (
    b'{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt","service_tier":"default",'
    b'"system_fingerprint":null,"choices":[{"index":0,"delta":{"content":"Hi"},"logprobs":null,"finish_reason":null}],'
    b'"usage":null,"obfuscation":"x"}'
)
VLLM = (
    b'{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":'
    b'{"content":"Hi"},"logprobs":null,"finish_reason":null,"token_ids":null}]}'
)
SGLANG = (
    b'{"id":"1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"role":null,'
    b'"content":"Hi","reasoning_content":null,"tool_calls":null},"logprobs":null,"finish_reason":null,'
    b'"matched_stop":null}],"usage":null}'
)


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **fields: object) -> bytes:
    """A chunk with one choice; with none where there is neither a delta nor a finish reason."""
    has_choice = delta is not None or finish is not None
    choices = [{"index": 0, "delta": delta or {}, "finish_reason": finish}] if has_choice else []
    return json.dumps({"object": "chat.completion.chunk", "choices": choices, **fields}).encode()


def usage(prompt_tokens: int, completion_tokens: int, cached_tokens: int = 0) -> dict[str, Any]:
    details = {"cached_tokens": cached_tokens}
    counts = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
    return {**counts, "prompt_tokens_details": details}


def record(number: int = 0, due_s: float = 0.0, **fields: object) -> RequestRecord:
    """A request that was sent when it was due, and not answered yet."""
    values: dict[str, Any] = {"conversation": number, "turn": 0, "sent_s": due_s, **fields}
    values["chunk_s"] = array("d", values.get("chunk_s", ()))
    return RequestRecord(number, due_s=due_s, **values)


def answered(number: int, sent_s: float, chunk_s: list[float], output_tokens: int, **fields: object) -> RequestRecord:
    """A request that was answered as its last event came."""
    return record(number, sent_s, chunk_s=chunk_s, ended_s=chunk_s[-1], output_tokens=output_tokens, **fields)
