"""Questions about experts, with an engine that only has experts."""

from collections.abc import Sequence
from contextlib import nullcontext

import pytest

from core.errors import BatonError, CheckpointError, ConfigError
from core.experts import ExpertLayer, ExpertReport
from engine.parallel.rebalance import LayerBalance, RebalanceReport
from worker.experts import ExpertDesk
from worker.mailbox import Mailbox


class Experts:
    """Two layers of two experts; each rebalancing of a layer is noted."""

    def __init__(self, failures: dict[int, BatonError]) -> None:
        self.failures = failures
        self.rebalanced: list[int] = []

    def expert_load(self) -> dict[int, list[int]]:
        return {2: [30, 10], 1: [5, 5]}

    def rebalance_experts(self, layers: Sequence[int]) -> RebalanceReport:
        (layer,) = layers
        if layer in self.failures:
            raise self.failures[layer]
        self.rebalanced.append(layer)
        return RebalanceReport((LayerBalance(layer, 1.5, 1.0),), num_moved=1, bytes_read=0)


class Desk:
    """A desk whose loop ticks when the test says so."""

    def __init__(self, failures: dict[int, BatonError] | None = None) -> None:
        self.engine = Experts(failures or {})
        self.mailbox = Mailbox()
        self.reports: list[ExpertReport] = []
        self._desk = ExpertDesk(self.engine, self.mailbox, nullcontext)  # type: ignore[arg-type] # what is not called is not there

    def ask(self, *, rebalance: bool) -> None:
        self._desk.ask("q", self.reports.append, rebalance=rebalance)

    def tick(self) -> None:
        for call in self.mailbox.receive(0.0):
            call()


def test_load_is_told_by_layer_in_order() -> None:
    desk = Desk()
    desk.ask(rebalance=False)
    assert desk.reports == []
    desk.tick()
    assert desk.reports == [ExpertReport("q", (ExpertLayer(1, (5, 5)), ExpertLayer(2, (30, 10))))]
    assert desk.engine.rebalanced == []


def test_rebalancing_takes_one_layer_between_two_steps() -> None:
    desk = Desk()
    desk.ask(rebalance=True)
    for num_layers in (1, 2):
        assert desk.reports == []
        desk.tick()
        assert len(desk.engine.rebalanced) == num_layers
    (report,) = desk.reports
    assert report.layers == (ExpertLayer(1, (5, 5), 1.5, 1.0), ExpertLayer(2, (30, 10), 1.5, 1.0))
    assert (report.num_moved, report.refusal) == (2, "")
    desk.tick()
    assert len(desk.reports) == 1


@pytest.mark.parametrize("failure", [ConfigError("one rank"), CheckpointError("the file is gone")])
def test_rebalancing_that_fails_says_why_and_what_was_done_before(failure: BatonError) -> None:
    desk = Desk({1: failure})
    desk.ask(rebalance=True)
    for _ in range(3):
        desk.tick()
    (report,) = desk.reports
    assert report.refusal == failure.message
    assert {layer.layer: layer.imbalance_after for layer in report.layers} == {1: 0.0, 2: 1.0}
    assert report.num_moved == 1


def test_second_rebalancing_is_refused_while_one_is_under_way() -> None:
    desk = Desk()
    desk.ask(rebalance=True)
    desk.ask(rebalance=True)
    desk.tick()
    desk.tick()
    refused, done = desk.reports
    assert "being moved already" in refused.refusal
    assert (done.refusal, desk.engine.rebalanced) == ("", [2, 1])
    desk.ask(rebalance=True)
    desk.tick()
    desk.tick()
    assert desk.reports[-1].refusal == ""
