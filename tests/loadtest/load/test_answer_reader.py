import pytest

from loadtest.load.answer_reader import DONE, AnswerReader, error_of
from tests.loadtest.load.chunks import VLLM, chunk, record, usage


def test_whole_answer_is_in_its_record() -> None:
    asked = record()
    reader = AnswerReader(asked, keeps_text=True)
    reader.begin(200, 0.5)
    reader.take([chunk({"role": "assistant", "content": ""}), VLLM], 1.0)
    reader.take([VLLM, chunk({"content": "!"}, "length")], 2.0)
    reader.take([chunk(usage=usage(10, 4, 3)), DONE], 2.5)
    assert reader.is_complete
    reader.end(3.0)
    assert (asked.status, asked.headers_s, list(asked.chunk_s), asked.ended_s) == (200, 0.5, [1.0, 2.0, 2.0], 3.0)
    assert (asked.prompt_tokens, asked.output_tokens, asked.cached_tokens) == (10, 4, 3)
    assert (asked.finish_reason, asked.error, reader.text()) == ("length", None, "HiHi!")
    assert (asked.ttft_s, asked.tpot_s, asked.is_answered) == (1.0, pytest.approx(1 / 3), True)


def test_without_usage_events_are_tokens() -> None:
    asked = record()
    reader = AnswerReader(asked, keeps_text=False)
    reader.take([VLLM, VLLM, chunk(finish="stop")], 1.0)
    reader.end(2.0)
    assert (asked.output_tokens, asked.prompt_tokens, asked.error) == (2, None, None)


@pytest.mark.parametrize(
    ("events", "error"),
    [
        ([VLLM], "cut_off"),
        ([], "cut_off"),
        ([DONE], "no_text"),
        ([chunk(finish="stop")], "no_text"),
        ([VLLM, b"{", DONE], "bad_event"),
        ([VLLM, b"[]", DONE], "bad_event"),
        ([b'{"choices":[7]}', DONE], "bad_event"),
        ([chunk(usage={"tokens": 1}), DONE], "bad_event"),
        ([VLLM, b'{"error":{"message":"gone","type":"server_error","code":"worker_lost"}}'], "worker_lost"),
        ([VLLM, b'{"error":{"message":"gone","type":"BadRequestError","code":400}}', DONE], "BadRequestError"),
        ([b'{"object":"error","message":"gone","type":"","code":400}'], "error"),
        ([b'{"error":"gone"}', VLLM, DONE], "error"),
    ],
)
def test_failure_has_its_kind_and_an_example(events: list[bytes], error: str) -> None:
    asked = record()
    reader = AnswerReader(asked, keeps_text=False)
    reader.take(events, 1.0)
    reader.end(2.0)
    assert (asked.error, asked.ended_s, asked.is_answered, reader.is_complete) == (error, 2.0, False, False)
    assert reader.example


def test_answer_that_breaks_has_as_many_tokens_as_events() -> None:
    asked = record()
    reader = AnswerReader(asked, keeps_text=False)
    reader.take([VLLM, VLLM], 1.0)
    reader.fail("cut_off", "closed", 2.0)
    assert (asked.output_tokens, asked.is_answered) == (2, False)


def test_delta_without_anything_is_no_text() -> None:
    reader = AnswerReader(record(), keeps_text=True)
    reader.take([VLLM, b'{"choices":[{"delta":null,"finish_reason":"stop"}]}', DONE], 1.0)
    assert reader.text() == "Hi"


def test_first_failure_counts() -> None:
    asked = record()
    reader = AnswerReader(asked, keeps_text=False)
    reader.fail("timeout", "slow", 1.0)
    reader.fail("cut_off", "closed", 2.0)
    assert (asked.error, asked.ended_s, reader.example) == ("timeout", 1.0, "slow")


def test_answer_that_breaks_after_an_error_event_has_ended_with_that_error() -> None:
    asked = record()
    reader = AnswerReader(asked, keeps_text=False)
    reader.take([VLLM, b'{"error":{"message":"gone","code":"worker_lost"}}'], 1.0)
    reader.fail("cut_off", "closed", 2.0)
    assert (asked.error, asked.ended_s, reader.example) == ("worker_lost", 2.0, "gone")


def test_failure_after_the_end_is_none() -> None:
    asked = record()
    reader = AnswerReader(asked, keeps_text=False)
    reader.take([VLLM, DONE], 1.0)
    reader.end(1.0)
    reader.fail("timeout", "slow", 2.0)
    assert asked.is_answered


def test_chunk_is_no_error() -> None:
    assert error_of({"choices": [], "error": None}) is None
