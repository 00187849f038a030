from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import ConfigError
from loadtest.arrivals import Arrival
from loadtest.workloads.settings import WorkloadSettings
from loadtest.workloads.traced import TracedRequests, read_trace
from loadtest.workloads.wordbook import ASSUMED
from loadtest.workloads.writer import Writer

TRACES = Path(__file__).parents[4] / "shared" / "traces"
MOONCAKE = TRACES / "mooncake_conversation.jsonl"
AZURE = TRACES / "azure_2023_conv.csv"
WRITER = Writer(ASSUMED, "0 0")
SCALES = st.sampled_from([1.0, 0.1, 0.03, 2.0])

CSV = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:00:00.5,100,5\n2023-11-16 18:00:02.5,200,6\n"


def prompts(traced: TracedRequests) -> list[list[str]]:
    return [
        conversation.turns[0].messages[0].content.split(" ") for conversation in WRITER.conversations(traced.plans())
    ]


def common(one: list[object], other: list[object]) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=4), min_size=2, max_size=5), SCALES, st.data())
def test_prompts_share_as_many_tokens_as_their_ids_say(
    chains: list[list[int]], scale: float, data: st.DataObject
) -> None:
    tails = [data.draw(st.integers(1, 512)) for _ in chains]
    arrivals = [
        Arrival(0.0, 512 * (len(chain) - 1) + tail, 1, tuple(chain))
        for chain, tail in zip(chains, tails, strict=True)
    ]
    written = prompts(TracedRequests(arrivals, scale))
    block_tokens = round(512 * scale)
    for arrival, prompt in zip(arrivals, written, strict=True):
        assert len(prompt) == max(1, round(arrival.prompt_tokens * scale))
    for i, one in enumerate(chains):
        for j, other in enumerate(chains[:i]):
            equal_ids = common(list(one), list(other))
            shared = common(list(written[i]), list(written[j]))
            # Blocks after the equal ones differ from their first words on, but these are few words to choose from.
            least = min(equal_ids * block_tokens, len(written[i]), len(written[j]))
            assert least <= shared
            if equal_ids < min(len(one), len(other)):
                assert shared < least + block_tokens


def test_requests_without_ids_share_nothing(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(CSV, encoding="utf-8")
    one, other = prompts(read_trace(WorkloadSettings(trace=path), path))
    assert (len(one), len(other)) == (100, 200)
    assert one[:16] != other[:16]


def test_times_begin_with_the_part_and_are_scaled(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(CSV, encoding="utf-8")
    settings = WorkloadSettings(trace=path, time_scale=0.5, trace_offset_s=1.0)
    assert read_trace(settings, path).arrivals == [Arrival(0.5, 200, 6)]
    settings = WorkloadSettings(trace=path, trace_duration_s=2.0)
    assert read_trace(settings, path).arrivals == [Arrival(0.0, 100, 5)]


def test_answers_are_scaled_and_never_empty(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(CSV, encoding="utf-8")
    traced = read_trace(WorkloadSettings(trace=path, length_scale=0.01), path)
    assert [plan.turns[0].answer_tokens for plan in traced.plans()] == [1, 1]


def test_other_times_end_with_the_trace(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(CSV, encoding="utf-8")
    traced = read_trace(WorkloadSettings(trace=path), path)
    assert [plan.at_s for plan in traced.plans_at(iter([3.0, 4.0, 5.0]))] == [3.0, 4.0]


def test_part_without_requests_is_refused_with_the_end_of_the_trace(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(CSV, encoding="utf-8")
    with pytest.raises(ConfigError, match="from 10 to inf s; its last of 2 comes at 2 s"):
        read_trace(WorkloadSettings(trace=path, trace_offset_s=10.0), path)


def test_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"must be Mooncake's \.jsonl or Azure's \.csv"):
        read_trace(WorkloadSettings(), tmp_path / "trace.parquet")


@pytest.mark.parametrize(
    ("path", "num_requests", "mean_prompt"), [(MOONCAKE, 12_031, 12_035), (AZURE, 19_366, 1_155)]
)
def test_published_trace_is_read_as_it_is(path: Path, num_requests: int, mean_prompt: float) -> None:
    if not path.exists():
        pytest.skip(f"{path.name} is not at {path.parent}; it is not part of this repository")
    planned = list(read_trace(WorkloadSettings(trace=path), path).plans())
    assert len(planned) == num_requests
    assert planned == sorted(planned, key=lambda plan: plan.at_s or 0.0)
    assert sum(plan.turns[0].num_tokens for plan in planned) / num_requests == pytest.approx(mean_prompt, abs=1)
