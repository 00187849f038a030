import json

from hypothesis import given
from hypothesis import strategies as st

from core.request import FinishReason
from router.http.chat_response import ChatCompletionChunk, ChoiceLogprobs, TokenLogprob, Usage
from router.http.chunk_encoder import ChunkEncoder


@given(text=st.text(), first=st.booleans(), reason=st.sampled_from([None, *FinishReason]), counted=st.booleans())
def test_any_text_is_one_event_line_that_decodes_to_it(
    text: str, first: bool, reason: FinishReason | None, counted: bool
) -> None:
    encoder = ChunkEncoder('chatcmpl-"1"', 1700000000, "org/\u6a21\u578b", include_usage=True)
    usage = Usage.of(3, 4, 2) if counted else None
    entry = TokenLogprob(token=text, logprob=-0.5, bytes=list(text.encode()), top_logprobs=[])
    logprobs = ChoiceLogprobs(content=[entry]) if counted else None
    event = encoder.text(text, 7, first=first, finish_reason=reason, logprobs=logprobs, usage=usage).decode()
    event_id, line, *rest = event.splitlines()
    assert rest == [""]
    assert event_id == f'id: chatcmpl-"1":7:{"t" if reason is None else "f"}'
    chunk = ChatCompletionChunk.model_validate_json(line.removeprefix("data: "), strict=True)
    assert chunk.id == 'chatcmpl-"1"'
    assert chunk.model == "org/\u6a21\u578b"
    assert chunk.choices[0].delta.content == text
    assert chunk.choices[0].delta.role == ("assistant" if first else None)
    assert chunk.choices[0].finish_reason == reason
    assert chunk.choices[0].logprobs == logprobs
    assert chunk.usage == usage


def test_usage_is_null_only_for_those_who_asked() -> None:
    asked = ChunkEncoder("id", 0, "m", include_usage=True).text("x", 1)
    silent = ChunkEncoder("id", 0, "m", include_usage=False).text("x", 1)
    assert json.loads(asked.partition(b"data: ")[2])["usage"] is None
    assert "usage" not in json.loads(silent.partition(b"data: ")[2])


def test_last_events_have_ids_of_their_own() -> None:
    encoder = ChunkEncoder("chatcmpl-1", 0, "m", include_usage=True)
    assert encoder.usage(Usage.of(3, 4, 2)).startswith(b"id: chatcmpl-1:4:u\ndata: {")
    assert encoder.done(4) == b"id: chatcmpl-1:4:d\ndata: [DONE]\n\n"
