from array import array

import pytest

from core.errors import ConfigError
from deploy.bench.clients.clients_bench import differences, figures_of
from deploy.bench.clients.peers import ClientFigures
from deploy.commands.bench_clients import parse_peers
from loadtest.load.record import RequestRecord


def answered(*chunk_s: float) -> RequestRecord:
    record = RequestRecord(0, 0, 0, 0.0, 0.0)
    record.chunk_s = array("d", chunk_s)
    record.output_tokens = len(chunk_s)
    record.ended_s = chunk_s[-1]
    return record


def test_figures_of_ours_are_medians_in_milliseconds() -> None:
    records = [answered(0.1, 0.12), answered(0.2, 0.23), answered(0.4)]
    assert figures_of(records) == ClientFigures(3, pytest.approx(200.0), pytest.approx(25.0))


def test_ours_is_the_mean_of_the_runs_around_theirs() -> None:
    ours = ClientFigures(9, 90.0, 10.0), ClientFigures(9, 108.0, 10.0)
    ttft, tpot = differences("aiperf", ClientFigures(9, 110.0, 8.0), ours)
    assert (ttft["name"], ttft["holds"]) == ("aiperf_ttft_ms_p50_difference", True)
    assert ttft["value"] == pytest.approx(0.1)
    assert (tpot["value"], tpot["holds"]) == (pytest.approx(0.25), False)


def test_programs_are_found_by_the_names_of_clients() -> None:
    assert parse_peers(["aiperf=there/aiperf", "guidellm=guidellm"]) == {
        "aiperf": "there/aiperf",
        "guidellm": "guidellm",
    }


@pytest.mark.parametrize("text", ["wrk=/bin/wrk", "aiperf", "aiperf="])
def test_unknown_clients_and_missing_programs_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="NAME=PROGRAM with one of aiperf, guidellm"):
        parse_peers([text])
