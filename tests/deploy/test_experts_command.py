import json

import pytest
from rich.console import Console

from core.errors import ConfigError, UnavailableError
from core.experts import ExpertLayer, ExpertReport
from deploy.commands import experts as command
from deploy.commands.experts import experts, print_report

FEW = ExpertReport("1", (ExpertLayer(1, (30, 10, 0, 0)), ExpertLayer(2, (0, 0, 0, 0))))
MANY = ExpertReport("1", (ExpertLayer(1, tuple(range(64))),))
MOVED = ExpertReport("1", (ExpertLayer(1, (30, 10), 1.5, 1.0),), num_moved=2)
DENSE = ExpertReport("1")
REFUSED = ExpertReport("1", FEW.layers, refusal="one rank has them all")


def shown(report: ExpertReport, capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    print_report("decode-0", report, Console(width=200))
    return [line.split() for line in capsys.readouterr().out.splitlines()]


def test_few_experts_have_a_column_each(capsys: pytest.CaptureFixture[str]) -> None:
    _, head, first, idle = shown(FEW, capsys)
    assert head == ["layer", "e0", "e1", "e2", "e3", "imbalance"]
    assert first == ["1", "30", "10", "0", "0", "3.00"]
    assert idle == ["2", "0", "0", "0", "0", "0.00"]


def test_of_many_experts_the_most_used_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    _, _, layer = shown(MANY, capsys)
    assert layer[:3] == ["1", "63:63", "62:62"]
    assert len(layer) == 1 + command.MAX_COLUMNS + 1


def test_rebalancing_shows_the_ranks_before_and_after(capsys: pytest.CaptureFixture[str]) -> None:
    _, head, layer, moved = shown(MOVED, capsys)
    assert head[-3:] == ["ranks", "before", "after"]
    assert layer == ["1", "30", "10", "1.50", "1.50", "1.00"]
    assert moved[0] == "2"


def test_dense_model_has_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(DENSE, capsys) == [["worker", "decode-0:", "the", "model", "has", "no", "experts"]]


def test_json_has_every_layer_with_its_imbalance(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "get_experts", lambda _address, _worker: {"decode-0": FEW})
    experts(grpc="router:1", as_json=True)
    (report,) = json.loads(capsys.readouterr().out).values()
    assert report["layers"][0] == {
        "layer": 1,
        "tokens": [30, 10, 0, 0],
        "imbalance_before": 0.0,
        "imbalance_after": 0.0,
        "imbalance": 3.0,
    }


def test_rebalancing_without_a_worker_says_what_to_type() -> None:
    with pytest.raises(ConfigError, match="`baton experts decode-0 --rebalance`"):
        experts(rebalance=True, grpc="router:1")


def test_refused_rebalancing_shows_the_load_and_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "rebalance_experts", lambda _address, _worker: REFUSED)
    with pytest.raises(UnavailableError, match="not rebalanced: decode-0: one rank has them all"):
        experts("decode-0", rebalance=True, grpc="router:1")
    assert " 30 " in capsys.readouterr().out
