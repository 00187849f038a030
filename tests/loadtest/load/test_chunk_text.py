"""The cheap test says yes only where decoding says that there is text and nothing else."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.load.chunk_text import has_text, is_plain_text
from router.http.chunk_encoder import ChunkEncoder
from tests.loadtest.load.chunks import OPENAI, SGLANG, VLLM

BATON = ChunkEncoder("chatcmpl-1", 1, "m", include_usage=True, has_event_ids=False).text("Hi", 1)

NASTY = st.sampled_from(
    ['"content":"x', '\\"content\\":\\"', '"usage":{', '"error"', '"finish_reason":"stop"', '"', "\\"]
)
TEXTS = st.text(max_size=8) | NASTY | st.tuples(NASTY, NASTY).map("".join)
DELTAS = st.fixed_dictionaries(
    {}, optional={name: st.none() | TEXTS for name in ("content", "reasoning_content", "role", "refusal")}
)
CHUNKS = st.fixed_dictionaries(
    {
        "choices": st.lists(
            st.fixed_dictionaries({"delta": DELTAS}, optional={"finish_reason": st.none() | st.just("stop") | TEXTS}),
            max_size=1,
        )
    },
    optional={
        "usage": st.none() | st.just({"prompt_tokens": 1}),
        "error": st.just({"message": "no"}),
        "model": TEXTS,
    },
)


@pytest.mark.parametrize(
    "data",
    [OPENAI, VLLM, SGLANG, BATON.removeprefix(b"data: ")],
    ids=["OpenAI", "vLLM", "SGLang", "Baton"],
)
def test_text_of_known_servers_is_seen_without_decoding(data: bytes) -> None:
    assert is_plain_text(data)
    assert not is_plain_text(data.replace(b'"Hi"', b'""'))
    assert not is_plain_text(data.replace(b'"finish_reason":null', b'"finish_reason":"stop"'))


@given(CHUNKS, st.booleans())
def test_plain_text_is_text_and_nothing_else(chunk: dict[str, object], is_compact: bool) -> None:
    separators = (",", ":") if is_compact else None
    data = json.dumps(chunk, ensure_ascii=False, separators=separators).encode("utf-8", "replace")
    if is_plain_text(data):
        (choice,) = chunk["choices"]  # type: ignore[misc]
        assert has_text(choice["delta"])
        assert not choice.get("finish_reason")
        assert not chunk.get("usage")
        assert not chunk.get("error")


@pytest.mark.parametrize(
    ("delta", "is_text"),
    [
        ({"content": "a"}, True),
        ({"content": ""}, False),
        ({"content": None, "reasoning_content": "a"}, True),
        ({"reasoning": "a"}, True),
        ({"role": "assistant"}, False),
        ({"tool_calls": [{"index": 0}]}, True),
    ],
)
def test_tokens_show_as_text_thoughts_or_calls(delta: dict[str, object], is_text: bool) -> None:
    assert has_text(delta) is is_text
