import threading
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from core.errors import ContextLengthError
from router.http.chat_request import parse_chat_request
from router.http.prepare import INLINE_CHARS, ChatPreparer
from router.intake import Intake
from router.text.tokenizer import TextCodec
from tests.router.http.serving import MODEL


@pytest.mark.parametrize(("num_chars", "inline"), [(INLINE_CHARS, True), (INLINE_CHARS + 1, False)])
async def test_long_prompt_is_tokenized_off_the_event_loop(
    codec: TextCodec, monkeypatch: pytest.MonkeyPatch, num_chars: int, inline: bool
) -> None:
    threads = []

    def encode_chat(messages: Sequence[Mapping[str, Any]]) -> list[int]:
        threads.append(threading.get_ident())
        return TextCodec.encode_chat(codec, messages)

    monkeypatch.setattr(codec, "encode_chat", encode_chat)
    body = {"model": MODEL, "messages": [{"role": "user", "content": "x" * num_chars}]}
    prepared = await ChatPreparer(codec, Intake(codec, MODEL, 100_000)).prepare("id", parse_chat_request(body))
    assert len(prepared.generation.prompt) == num_chars + len("<user><assistant>")
    assert (threads == [threading.get_ident()]) is inline


async def test_prompt_may_fill_the_context_but_for_one_token(codec: TextCodec) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "x"}]}
    num_prompt_tokens = len("<user>x<assistant>")
    fits = ChatPreparer(codec, Intake(codec, MODEL, num_prompt_tokens + 1))
    assert (await fits.prepare("id", parse_chat_request(body))).generation.max_tokens == 1
    with pytest.raises(ContextLengthError, match=f"{num_prompt_tokens} tokens"):
        await ChatPreparer(codec, Intake(codec, MODEL, num_prompt_tokens)).prepare("id", parse_chat_request(body))
