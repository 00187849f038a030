"""Questions, answers, and what is said of them; over a real server with scripted answers."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from deploy.bench.chaos.answer import Answer, StreamedAnswer, whole_answer
from deploy.bench.chaos.chaos_bench import chaos_result
from deploy.bench.chaos.client import Asked
from deploy.bench.chaos.question import Kind, Question, questions, wants_stop
from deploy.bench.chaos.settling import Leftovers, leftovers
from deploy.bench.chaos.storm import MAX_ERRORS, StormReport, ask_all, draws, undisturbed
from deploy.commands.bench_chaos import print_chaos_result
from router.text.tokenizer import TextCodec
from tests.deploy.fake_router import worker_status
from tests.router.http.serving import (  # noqa: F401 - fixtures
    MODEL,
    Api,
    api,
    codec,
    config,
    running_api,
    says,
    tiny_model_dir,
)

ANSWER = Answer("text", "stop", 9, 3, 4, (("a", -1.0), ("b", -2.0)))
QUESTION = Question(0, Kind.GREEDY, is_streamed=True, body={})
NOTHING = Leftovers(0, 0)


# --- questions


def test_questions_are_of_every_kind_streamed_and_whole_with_and_without_stop(codec: TextCodec) -> None:  # noqa: F811
    asked = questions(MODEL, codec, 32)
    kinds = {(question.kind, question.is_streamed, wants_stop(question)) for question in asked}
    assert len(kinds) == 2 * 2 * len(Kind)
    assert asked == questions(MODEL, codec, 32)
    assert len({question.body["messages"][0]["content"] for question in asked}) == 32


def test_stop_string_is_cut_out_of_the_answer() -> None:
    assert QUESTION.stopping_at("0123456789").body == {"stop": ["567"]}
    assert QUESTION.stopping_at("01") == QUESTION


def test_draws_depend_on_the_seed_and_end_as_told() -> None:
    asked = [replace(QUESTION, number=number) for number in range(100)]

    def drawn(seed: int) -> list[int]:
        return [question.number for question in draws(asked, seed, lambda number: number < 50)]

    assert drawn(1) == drawn(1) != drawn(2)
    assert len(drawn(1)) == 50


# --- answers


def test_answer_is_itself_whatever_was_cached_and_but_for_rounding() -> None:
    assert ANSWER.difference(ANSWER) == ""
    assert replace(ANSWER, num_cached_tokens=0, logprobs=(("a", -1.0001), ("b", -2.0))).difference(ANSWER) == ""


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"text": "texts"}, "text is 'texts', expected 'text'"),
        ({"finish_reason": "length"}, "finish_reason"),
        ({"num_prompt_tokens": 8}, "num_prompt_tokens"),
        ({"num_tokens": 4}, "num_tokens is 4, expected 3"),
        ({"num_cached_tokens": 9}, "9 of 9 prompt tokens"),
        ({"logprobs": (("a", -1.0),)}, "of other tokens"),
        ({"logprobs": (("a", -1.0), ("b", -2.1))}, "differ"),
    ],
)
def test_other_answer_is_found_out(change: dict[str, object], word: str) -> None:
    assert word in replace(ANSWER, **change).difference(ANSWER)


def test_stream_without_its_end_is_a_wrong_answer() -> None:
    streamed = StreamedAnswer()
    assert streamed.add({"choices": [{"delta": {"content": "text"}, "logprobs": None, "finish_reason": None}]})
    assert streamed.ended().difference(Answer("text", "stop", 9, 3, 0)) == "finish_reason is '', expected 'stop'"


def test_streamed_and_whole_answers_are_the_same(api: Api) -> None:  # noqa: F811
    api.dispatcher.script = says(api.codec, "the same")
    asked = [replace(question, body={**question.body, "model": MODEL}) for question in questions(MODEL, api.codec, 8)]
    ended = ask_all(api.url, iter(asked), 1, lambda _ended: None)
    assert [each.question.is_streamed for each in ended] == [True, False] * 4
    assert {each.answer.text for each in ended if each.answer is not None} == {"the same"}
    assert not [each.failure for each in ended if each.failure]


def test_undisturbed_run_gives_some_questions_their_stop_strings(api: Api) -> None:  # noqa: F811
    api.dispatcher.script = says(api.codec, "0123456789")
    ended: list[Asked] = []
    asked, report, expected = undisturbed(api.url, questions(MODEL, api.codec, 6), 2, ended.append)
    assert len(ended) == 2 + 6
    assert [question.body.get("stop") for question in asked] == [["456"], None, None, ["456"], None, None]
    assert (report.requests, report.lost, report.wrong) == (6, 0, 0)
    assert expected[3].text == "0123"


def test_whole_answer_has_what_its_document_says() -> None:
    entry = {"token": "a", "logprob": -1.0}
    choice = {"message": {"content": "text"}, "logprobs": {"content": [entry]}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 9, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 4}}
    assert whole_answer({"choices": [choice], "usage": usage}) == Answer("text", "stop", 9, 1, 4, (("a", -1.0),))


# --- reports


def report(*asked: Asked) -> StormReport:
    return StormReport.of(asked, {0: ANSWER})


def test_report_counts_lost_and_wrong_and_the_longest_pause() -> None:
    right = Asked(QUESTION, ANSWER, longest_pause_s=2.0, ttft_s=0.5, num_reconnects=1)
    wrong = Asked(QUESTION, replace(ANSWER, text="other"), longest_pause_s=1.0, whole_s=3.0)
    lost = [Asked(QUESTION, failure="status 503") for _ in range(MAX_ERRORS)]
    got = report(right, wrong, *lost)
    assert (got.requests, got.lost, got.wrong, got.reconnects) == (2 + MAX_ERRORS, MAX_ERRORS, 1, 1)
    assert (got.longest_pause_s, got.longest_ttft_s, got.longest_whole_s, got.longest_wait_s) == (2.0, 0.5, 3.0, 3.0)
    assert got.errors == ("question 0: status 503",) * MAX_ERRORS


@pytest.mark.parametrize(
    ("storm", "faults", "left", "missed"),
    [
        (report(Asked(QUESTION, ANSWER)), {"kill decode": 1}, NOTHING, []),
        (report(), {"kill decode": 1}, NOTHING, ["requests"]),
        (report(Asked(QUESTION, ANSWER)), {"stop decode": 1}, NOTHING, ["kills"]),
        (report(Asked(QUESTION, failure="x")), {"kill router": 1}, NOTHING, ["lost"]),
        (report(Asked(QUESTION, replace(ANSWER, text=""))), {"kill router": 1}, NOTHING, ["wrong"]),
        (report(Asked(QUESTION, ANSWER, longest_pause_s=99.0)), {"kill x": 1}, NOTHING, ["longest_pause_s"]),
        (report(Asked(QUESTION, ANSWER, ttft_s=99.0)), {"kill x": 1}, NOTHING, ["longest_pause_s"]),
        (report(Asked(QUESTION, ANSWER, whole_s=99.0)), {"kill x": 1}, NOTHING, ["longest_pause_s"]),
        (report(Asked(QUESTION, ANSWER)), {"kill x": 1}, Leftovers(2, 1), ["blocks_leaked", "workers_missing"]),
    ],
)
def test_every_target_can_be_missed(
    storm: StormReport, faults: dict[str, int], left: Leftovers, missed: list[str]
) -> None:
    result = chaos_result(report(Asked(QUESTION, ANSWER)), storm, faults, left, num_requests=1)
    assert [check["name"] for check in result["checks"] if not check["holds"]] == missed
    shown = io.StringIO()
    print_chaos_result(result, Console(file=shown, width=200))
    assert shown.getvalue().count("MISSED") == len(missed)


# --- what is left


def test_cluster_is_settled_when_all_workers_are_back_and_hold_nothing() -> None:
    looks = [[], [worker_status("d", blocks_running=1)], [worker_status("d", blocks_cached=5)]]
    assert leftovers(lambda: looks.pop(0), num_workers=1) == NOTHING
    assert looks == []


def test_what_is_left_after_the_time_is_counted() -> None:
    workers = [worker_status("d", blocks_leased=1, blocks_quarantined=2)]
    assert leftovers(lambda: workers, num_workers=3, timeout_s=0) == Leftovers(blocks=3, missing_workers=2)
