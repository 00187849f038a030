import itertools
import json
from pathlib import Path

import pytest

from core.errors import CheckpointError, ConfigError
from loadtest.load.conversation import Conversation
from loadtest.workloads.settings import WorkloadSettings
from loadtest.workloads.workload import Workload
from router.text.tokenizer import TextCodec

LINE = {"timestamp": 2000, "input_length": 700, "output_length": 5, "hash_ids": [4, 9]}
CONVERSATION = [{"role": "user", "content": "How are you?"}, {"role": "assistant", "content": "Well, thank you."}]


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.jsonl"
    path.write_text("\n".join([json.dumps(LINE)] * 3), encoding="utf-8")
    return path


def asked(workload: Workload, rate: float, run: int) -> list[Conversation]:
    return list(itertools.islice(workload.conversations(workload.open_loop(rate), run), 20))


def test_a_run_asks_the_same_again_and_the_next_one_other_words_of_the_same_lengths() -> None:
    settings = WorkloadSettings(prompt_tokens="20:50")
    first, again, other = (asked(Workload.load(settings), 2.0, run) for run in (0, 0, 1))
    assert first == again
    for one, another in zip(first, other, strict=True):
        assert one.at_s == another.at_s
        assert one.turns[0].prompt_tokens == another.turns[0].prompt_tokens
        assert one.turns[0].messages != another.turns[0].messages


def test_at_another_rate_the_same_is_asked_at_other_times() -> None:
    workload = Workload.load(WorkloadSettings(prompt_tokens="20:50", arrivals="constant"))
    slow, fast = asked(workload, 1.0, 0), asked(workload, 4.0, 0)
    assert [one.turns for one in slow] == [one.turns for one in fast]
    assert [one.at_s for one in slow[:3]] == [0.0, 1.0, 2.0]
    assert [one.at_s for one in fast[:3]] == [0.0, 0.25, 0.5]


def test_closed_loop_has_no_times() -> None:
    workload = Workload.load(WorkloadSettings())
    assert next(workload.conversations(workload.closed_loop(), 0)).at_s is None


def test_trace_is_asked_at_its_own_times_or_at_a_rate(trace: Path) -> None:
    workload = Workload.load(WorkloadSettings(trace=trace, arrivals="constant"))
    assert [plan.at_s for plan in workload.open_loop(2.0)] == [0.0, 0.5, 1.0]
    workload = Workload.load(WorkloadSettings(trace=trace))
    assert [plan.at_s for plan in workload.open_loop(None)] == [2.0, 2.0, 2.0]


def test_flags_that_would_mean_nothing_are_refused(trace: Path) -> None:
    processed = Workload.load(WorkloadSettings(trace=trace, arrivals="constant"))
    with pytest.raises(ConfigError, match="--arrivals is constant"):
        processed.open_loop(None)
    with pytest.raises(ConfigError, match="--arrivals is constant"):
        processed.closed_loop()
    scaled = Workload.load(WorkloadSettings(trace=trace, time_scale=2.0))
    with pytest.raises(ConfigError, match=r"--time-scale is 2\.0"):
        scaled.open_loop(1.0)
    with pytest.raises(ConfigError, match=r"--time-scale is 2\.0"):
        scaled.closed_loop()
    with pytest.raises(ConfigError, match="a rate is needed"):
        Workload.load(WorkloadSettings()).open_loop(None)


def test_data_set_is_counted_in_words_without_a_tokenizer(tmp_path: Path) -> None:
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps([{"messages": CONVERSATION}]), encoding="utf-8")
    workload = Workload.load(WorkloadSettings(dataset=path))
    (conversation,) = workload.conversations(workload.closed_loop(), 0)
    assert conversation.turns[0].prompt_tokens == 3
    assert conversation.turns[0].messages[0].content == "How are you?"


@pytest.mark.demo
def test_data_set_is_counted_by_the_tokenizer(tmp_path: Path, demo_model_dir: Path, demo_codec: TextCodec) -> None:
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps([{"messages": CONVERSATION}]), encoding="utf-8")
    workload = Workload.load(WorkloadSettings(dataset=path, tokenizer=demo_model_dir))
    (plan,) = workload.closed_loop()
    lengths = [len(demo_codec.encode(one["content"], add_special_tokens=False)) for one in CONVERSATION]
    assert [plan.turns[0].num_tokens, plan.turns[0].answer_tokens] == lengths


def test_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is missing"):
        Workload.load(WorkloadSettings(tokenizer=tmp_path))
