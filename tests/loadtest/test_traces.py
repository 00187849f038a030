import json
from pathlib import Path

import pytest

from core.errors import ConfigError
from loadtest.arrivals import Arrival
from loadtest.traces import faster, read_mooncake

LINE = {"timestamp": 3000, "input_length": 700, "output_length": 5, "hash_ids": [4, 9]}


def test_requests_of_a_trace_come_in_order_of_time(tmp_path: Path) -> None:
    lines = [LINE, {**LINE, "timestamp": 0}]
    path = tmp_path / "trace.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    assert read_mooncake(path) == [Arrival(0.0, 700, 5, (4, 9)), Arrival(3.0, 700, 5, (4, 9))]


@pytest.mark.parametrize("line", ["{", "[]", "{}", json.dumps({**LINE, "output_length": 0}), json.dumps(7)])
def test_line_that_is_no_request_is_refused_with_its_number(tmp_path: Path, line: str) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text(f"{json.dumps(LINE)}\n{line}", encoding="utf-8")
    with pytest.raises(ConfigError, match="line 2"):
        read_mooncake(path)


def test_trace_that_is_not_there_is_refused_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.jsonl cannot be read"):
        read_mooncake(tmp_path / "none.jsonl")


def test_faster_replay_keeps_the_requests() -> None:
    assert faster([Arrival(3.0, 10, 5)], 2.0) == [Arrival(1.5, 10, 5)]
