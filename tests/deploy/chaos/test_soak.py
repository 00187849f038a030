"""What a soak counts, and when memory counts as flat."""

import io
from collections.abc import Mapping

import httpx
import psutil
import pytest
from rich.console import Console

from core.errors import ConfigError
from core.processes import ProcessId, this_process
from deploy.bench.chaos.memory import MemoryRow, MemoryWatch, growth, resident_mib
from deploy.bench.chaos.question import Kind, Question
from deploy.bench.chaos.soak import Offered, offer, soak_result
from deploy.commands.bench_chaos import bench_chaos, print_soak_result

WHOLE = Question(0, Kind.GREEDY, is_streamed=False, body={})
DOCUMENT = {
    "choices": [{"message": {"content": "text"}, "logprobs": None, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 2, "completion_tokens": 1},
}


def rows(*looks: Mapping[str, float]) -> list[MemoryRow]:
    return [MemoryRow(10.0 * number, look) for number, look in enumerate(looks)]


def flat(router_mib: float = 100.0) -> list[MemoryRow]:
    return rows({"router": 50.0}, *({"router": 100.0} for _ in range(6)), {"router": router_mib})


def test_memory_that_comes_with_the_load_is_no_growth() -> None:
    assert growth(flat()) == {"router": 0.0}


def test_memory_that_goes_on_growing_is() -> None:
    assert growth(rows(*({"d": 100.0 + 10 * number} for number in range(8)))) == {"d": pytest.approx(165 / 125 - 1)}


def test_two_looks_are_enough() -> None:
    assert growth(rows({"a": 100.0}, {"a": 110.0})) == {"a": 0.0}, "the second is what there is of both quarters"


def test_memory_of_a_process_that_has_ended_is_none() -> None:
    found = resident_mib({"me": [this_process()], "dead": [ProcessId(2**22, 0.0)]})
    assert found["me"] == pytest.approx(psutil.Process().memory_info().rss / 2**20, rel=0.5)
    assert found["dead"] == 0


def test_watch_looks_at_its_begin_and_at_its_end() -> None:
    watch = MemoryWatch({"me": [this_process()]})
    with watch.watching():
        pass
    assert [set(row.rss_mib) for row in watch.rows] == [{"me"}, {"me"}]


def test_soak_without_faults_counts_no_requests_under_them() -> None:
    with pytest.raises(ConfigError, match="--requests is 7, but --soak has no faults"):
        bench_chaos(requests=7, soak=True)


async def test_requests_are_answered_refused_or_failed() -> None:
    answers = [
        httpx.Response(200, json=DOCUMENT),
        httpx.Response(429, json={"error": {"code": "overloaded", "message": "later"}}),
        httpx.Response(500, text="a defect"),
        httpx.Response(200, json=DOCUMENT),
    ]

    def answer(_request: httpx.Request) -> httpx.Response:
        return answers.pop(0)

    async with httpx.AsyncClient(base_url="http://test", transport=httpx.MockTransport(answer)) as http:
        offered = await offer(http, [WHOLE], 0, rate_per_s=1000.0, duration_s=0.004)
    assert (offered.answered, offered.refused, offered.failures) == (2, 1, ["status 500: a defect"])
    assert len(offered.refusal_ms) == 1


@pytest.mark.parametrize(
    ("offered", "memory", "missed"),
    [
        (Offered(answered=3, refused=1, refusal_ms=[1.0]), flat(), []),
        (Offered(answered=3), flat(), ["refused"]),
        (Offered(answered=3, refused=1, refusal_ms=[1.0], failures=["x"]), flat(), ["failed"]),
        (Offered(answered=3, refused=2, refusal_ms=[1.0, 99.0]), flat(), ["refusal_ms_p99"]),
        (Offered(answered=3, refused=1, refusal_ms=[1.0]), flat(200.0), ["memory_growth"]),
    ],
)
def test_every_target_can_be_missed(offered: Offered, memory: list[MemoryRow], missed: list[str]) -> None:
    result = soak_result(2.0, offered, memory)
    assert [check["name"] for check in result["checks"] if not check["holds"]] == missed
    shown = io.StringIO()
    print_soak_result(result, Console(file=shown, width=200))
    assert shown.getvalue().count("MISSED") == len(missed)
    assert "after s" in shown.getvalue()
