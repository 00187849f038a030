import json
import re
from pathlib import Path
from typing import Any

import pytest
from plotly.offline import get_plotlyjs

from loadtest.report.report import report_page, write_report
from tests.loadtest.report.documents import answered, document_of, failed, run_of

RECORDS = [answered(0, 0.0, [0.5, 0.75]), answered(1, 1.0, [1.25, 2.0]), failed(2, 1.5)]


def page_of(document: dict[str, Any]) -> str:
    return report_page(document).replace(get_plotlyjs(), "")


def figures(page: str) -> list[dict[str, Any]]:
    found = re.findall(r'<script type="application/json">(.*?)</script>', page, re.DOTALL)
    return [json.loads(one) for one in found]


def test_page_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    write_report(document_of(run_of(RECORDS)), file)
    page = file.read_text(encoding="utf-8")
    assert page.count(get_plotlyjs()) == 1
    own = page.replace(get_plotlyjs(), "")
    assert "src=" not in own
    assert "href=" not in own
    assert "@import" not in own


def test_single_run_has_distributions_and_a_timeline() -> None:
    page = page_of(document_of(run_of(RECORDS)))
    titles = [figure["layout"].get("title", {}).get("text") for figure in figures(page)]
    assert titles == ["TTFT", "TPOT", "ITL", "end to end", None]
    assert "As the load rises" not in page


def test_sweep_has_percentiles_and_goodput_by_rate() -> None:
    runs = [run_of(RECORDS), run_of(RECORDS, name="4 requests/s", rate=4.0)]
    goodput, ttft, tpot = figures(page_of(document_of(*runs)))[:3]
    assert [one["name"] for one in goodput["data"]] == ["answered", "inside the limits"]
    assert goodput["data"][1]["y"] == [1.25, 1.25]
    assert ttft["data"][0]["x"] == [2.0, 4.0]
    assert [one["y"][0] for one in ttft["data"]] == [18.25, 30.0, 41.0]
    assert [one["y"][0] for one in tpot["data"]] == [None, None, None]
    assert ttft["layout"]["shapes"][0]["y0"] == 100.0
    assert "shapes" not in tpot["layout"]


@pytest.mark.parametrize(
    ("changes", "x", "title"),
    [
        ({"rate": None, "concurrency": 8}, 8, "requests at once"),
        ({"rate": None, "name": "trace"}, "trace", "run"),
    ],
)
def test_sweep_of_another_kind_is_drawn_by_its_own_strength(changes: dict[str, Any], x: object, title: str) -> None:
    runs = [run_of(RECORDS, **changes)] * 2
    goodput = figures(page_of(document_of(*runs)))[0]
    assert goodput["data"][0]["x"] == [x, x]
    assert goodput["layout"]["xaxis"]["title"]["text"] == title


def test_distribution_rises_from_the_least_to_the_most() -> None:
    ttft, _, itl, _, _ = figures(page_of(document_of(run_of(RECORDS))))
    assert ttft["data"][0]["x"] == [250.0, 500.0]
    assert ttft["data"][0]["y"] == [0.0, 100.0]
    assert itl["data"][0]["x"] == sorted(itl["data"][0]["x"])
    assert itl["data"][0]["x"][-1] == 750.0


def test_distributions_are_of_answered_requests() -> None:
    broken = answered(3, 2.0, [9.0, 9.5])
    broken.error = "cut_off"
    whole, with_broken = (figures(page_of(document_of(run_of(records)))) for records in (RECORDS, [*RECORDS, broken]))
    assert [one["data"][0] for one in with_broken[:4]] == [one["data"][0] for one in whole[:4]]


def test_run_that_is_not_valid_is_shown_in_red_with_its_reason() -> None:
    runs = [run_of(RECORDS), run_of(RECORDS, name="slow", valid=False, reasons=["31 ms late"])]
    page = page_of(document_of(*runs))
    assert '<div class="verdict bad"><strong>Not valid: 1 of 2 runs.</strong><p>slow: 31 ms late</p>' in page
    assert '<td class="bad">slow (not valid)</td>' in page
    assert "Not valid" not in page_of(document_of(run_of(RECORDS)))


def test_figures_of_the_tables_are_those_of_the_summary() -> None:
    page = page_of(document_of(run_of(RECORDS)))
    for shown in ("75.0 %", "700", "1.100", "10.0 %", "1.5 ms", "12.5 %", "18.2"):
        assert f"<td>{shown}</td>" in page
    assert '<td class="bad">1</td>' in page  # failed


def test_failures_faults_and_checks_are_listed_where_there_are_any() -> None:
    run = run_of(RECORDS, faults=[{"at_s": 1.0, "what": "kill decode-1", "error": None, "outcome": "pid 7"}])
    run["summary"]["errors"] = {"http_429": {"count": 1, "example": "too many"}}
    check = {"name": "lag", "value": 21.0, "unit": "ms", "target": "<= 20", "holds": False}
    page = page_of(document_of(run) | {"checks": [check]})
    for shown in ("too many", "kill decode-1", "pid 7", "21 ms"):
        assert f"<td>{shown}</td>" in page
    assert '<td class="bad">missed</td>' in page
    bare = page_of(document_of(run_of(RECORDS)))
    assert "<h2>Failures</h2>" not in bare
    assert "<h2>Faults</h2>" not in bare


def test_nothing_a_server_says_becomes_part_of_the_page() -> None:
    evil = "</script><script>alert(1)</script>"
    run = run_of(RECORDS, name=evil, reasons=[evil], valid=False)
    run["faults"] = [{"at_s": 1.0, "what": evil, "error": evil}]
    run["summary"]["errors"] = {evil: {"count": 1, "example": evil}}
    document = document_of(run, run) | {"url": evil, "model": evil, "settings": {evil: evil}, "machine": {evil: evil}}
    assert "<script>alert" not in page_of(document)
