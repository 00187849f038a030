"""The prediction beside a published figure: what it is made of, not how near it comes."""

import pytest

from core.errors import ConfigError
from deploy.planning.published import (
    PUBLISHED,
    RANGES,
    NodeRate,
    best_rates,
    node_rates,
    published_by_name,
    requests_per_s,
    sensitivity,
)
from loadtest.roofline.assumptions import Assumptions

ERNIE = PUBLISHED["ernie-300b"]
RATES = {rate.name: rate for rate in node_rates(ERNIE, Assumptions())}


def test_rates_are_of_a_whole_node() -> None:
    assert {name: rate.num_workers for name, rate in RATES.items()} == {
        "tp 4, ep 1, w4a8": 2, "tp 4, ep 4, w4a8": 2, "tp 1, ep 4, w4a8": 2,
        "tp 8, ep 1, w4a8": 1, "tp 8, ep 8, w4a8": 1, "tp 1, ep 8, w4a8": 1,
    }  # fmt: skip
    for rate in RATES.values():
        assert rate.step_s <= ERNIE.tpot_s
        assert rate.output_tokens_per_s == pytest.approx(rate.num_workers * rate.batch / rate.step_s, rel=1e-3)


def test_what_bounds_a_batch_is_named() -> None:
    assert RATES["tp 4, ep 1, w4a8"].bound == "KV room"
    assert RATES["tp 8, ep 8, w4a8"].bound == "TPOT"
    assert RATES["tp 8, ep 1, w4a8"].bound == "batch"


def test_best_rates_are_chosen_for_each_half() -> None:
    first, second = NodeRate("a", 1, 10.0, 1.0, 1, 0.1, "TPOT"), NodeRate("b", 1, 1.0, 10.0, 1, 0.1, "TPOT")
    assert best_rates([first, second]) == (first, second)


def test_no_node_computes_more_than_its_peak() -> None:
    """47 B parameters take part in a token, two operations each, at 8 x 1,979 TFLOPS at most."""
    prefill, decode = best_rates(list(RATES.values()))
    for tokens_per_s in (prefill.input_tokens_per_s, decode.output_tokens_per_s):
        assert tokens_per_s * 2 * 47e9 < 8 * 1979e12


def test_requests_of_a_split_fleet_are_those_that_both_halves_can_keep_up_with() -> None:
    """A prefill node does 10 requests/s and a decode node 30: of four nodes, three and one."""
    assert requests_per_s(ERNIE, 10 * 2048, 30 * 400) == pytest.approx(30 / 4)


def test_every_range_surrounds_its_assumption_from_worse_to_better() -> None:
    worse_and_better: dict[str, list[float]] = {}
    for name, _, best in sensitivity(ERNIE):
        worse_and_better.setdefault(name, []).append(best[0].input_tokens_per_s)
    base = best_rates(list(RATES.values()))[0].input_tokens_per_s
    assert list(worse_and_better) == list(RANGES)
    for name, (worse, better) in worse_and_better.items():
        if name == "hidden_share":  # none is hidden, so both are better
            assert base < worse < better
        else:
            assert worse < base < better


def test_unknown_figure_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match="--reproduce is 'gpt'; it must be one of ernie-300b"):
        published_by_name("gpt")
