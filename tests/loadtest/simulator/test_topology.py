"""Transfers take what their wires take, one after the other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import ConfigError
from loadtest.arrivals import Arrival
from loadtest.simulator.topology import Network, Speed, Topology
from tests.loadtest.builders import COST, MOVES, D, P, fleet_spec, run, times

TOPOLOGY = Topology(
    token_bytes=100,
    workers_per_node=2,
    nodes_per_rack=2,
    within_node=Speed(10_000.0, 0.001),
    adapter=Speed(1_000.0, 0.01),
    uplink=Speed(500.0, 0.1),
)


@pytest.mark.parametrize(
    ("target", "seconds"),
    [
        (0, 0.0),
        (1, 1000 / 10_000 + 0.001),
        (2, 1000 / 1_000 + 2 * 0.01),
        (4, 1000 / 500 + 2 * 0.01 + 2 * 0.1),
    ],
)
def test_lone_transfer_takes_the_slowest_wire_and_all_latencies(target: int, seconds: float) -> None:
    assert Network(TOPOLOGY).send(0, target, 10, now_s=5.0) == pytest.approx(5.0 + seconds)


def test_transfers_of_one_adapter_come_one_after_the_other() -> None:
    network = Network(TOPOLOGY)
    arrivals = [network.send(source, target, 10, 0.0) for source, target in ((0, 2), (1, 3), (0, 2))]
    assert arrivals == pytest.approx([1.02, 2.02, 3.02])


def test_transfers_that_share_no_wire_do_not_wait_for_each_other() -> None:
    network = Network(TOPOLOGY)
    assert network.send(0, 2, 10, 0.0) == pytest.approx(1.02)
    assert network.send(2, 0, 10, 0.0) == pytest.approx(1.02)


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7), st.integers(1, 50)), max_size=30))
def test_no_adapter_carries_more_than_it_can(sends: list[tuple[int, int, int]]) -> None:
    network = Network(TOPOLOGY)
    last_s = [network.send(source, target, num_tokens, 0.0) for source, target, num_tokens in sends]
    for node in range(4):
        left = [num for source, target, num in sends if source // 2 == node and target // 2 != node]
        assert sum(left) * 100 / 1_000 <= max(last_s, default=0.0) + 1e-9


def test_handoff_waits_for_the_last_chunk_only() -> None:
    topology = Topology(100, 1, 1, Speed(1e6), adapter=Speed(2e5))
    spec = fleet_spec(2, topology=topology)
    job = run(spec, [P, D], [Arrival(0.0, 250, 2)]).jobs[0]
    first_s, end_s = times(job)
    assert first_s == pytest.approx(COST.completion_s(0, 250))
    # Each 100 tokens travel in 0.05 s, while the next are computed.
    assert end_s - first_s == pytest.approx(50 * 100 / 2e5 + MOVES.handoff_s + COST.decode_s(1, 251))


@pytest.mark.parametrize("speed", [0.0, -1.0, float("inf")])
def test_wires_without_a_speed_are_refused(speed: float) -> None:
    with pytest.raises(ConfigError, match="bytes_per_s"):
        Speed(speed)
