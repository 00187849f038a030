import json
import math
from pathlib import Path

import pytest

from core.errors import ConfigError
from loadtest.arrivals import Arrival
from loadtest.traces import faster, read_azure, read_mooncake

LINE = {"timestamp": 3000, "input_length": 700, "output_length": 5, "hash_ids": [4, 9]}


def test_requests_of_a_trace_come_in_order_of_time(tmp_path: Path) -> None:
    lines = [LINE, {**LINE, "timestamp": 0}]
    path = tmp_path / "trace.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    assert read_mooncake(path) == [Arrival(0.0, 700, 5, (4, 9)), Arrival(3.0, 700, 5, (4, 9))]


@pytest.mark.parametrize(
    "line",
    [
        "{", "[]", "{}", json.dumps(7), json.dumps({**LINE, "output_length": 0}),
        json.dumps({**LINE, "timestamp": math.inf}), json.dumps({**LINE, "input_length": math.inf}),
    ],
)  # fmt: skip
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


AZURE = "\ufeffTIMESTAMP,ContextTokens,GeneratedTokens\n"


def test_azure_times_count_from_the_first_request(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(
        f"{AZURE}2023-11-16 18:15:48.6805900,396,109\n2023-11-16 18:15:46.6805900,374,44\n", encoding="utf-8"
    )
    assert read_azure(path) == [Arrival(0.0, 374, 44), Arrival(2.0, 396, 109)]


def test_azure_times_with_a_zone_are_read_beside_those_without(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(f"{AZURE}2024-05-10 00:00:00.5+00:00,396,109\n2024-05-10 00:00:00,374,44\n", encoding="utf-8")
    assert [arrival.at_s for arrival in read_azure(path)] == [0.0, 0.5]


@pytest.mark.parametrize(
    "row", ["yesterday,1,1", "2023-11-16 18:15:46,x,1", "2023-11-16 18:15:46,1", "2023-11-16,0,1"]
)
def test_azure_row_that_is_no_request_is_refused_with_its_line(tmp_path: Path, row: str) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(f"{AZURE}2023-11-16 18:15:46,374,44\n{row}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="line 3"):
        read_azure(path)


def test_table_of_other_columns_is_no_azure_trace(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("TIMESTAMP,Tokens\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="lacks ContextTokens, GeneratedTokens"):
        read_azure(path)


def test_compressed_trace_is_refused_as_no_text(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_bytes(b"\x1f\x8b\x08\xff")
    with pytest.raises(ConfigError, match="is no text"):
        read_azure(path)
