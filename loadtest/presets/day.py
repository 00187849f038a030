"""A day of traffic over a thousand workers: what the simulator must get through in minutes on one core.

Every number stands with its source in `day.toml`. The rate follows a sine; conversations outweigh agents' calls by
night, so that the mix of prompts and answers moves, too. Requests are drawn one by one as they come.
"""

import math
import random
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from loadtest.arrivals import Arrival
from loadtest.load.faults import Deed, Fault
from loadtest.policies.by_name import AUTO
from loadtest.presets.arrow import BATON, FLEETS, published_cost
from loadtest.presets.preset import Contestant, Preset
from loadtest.simulator.spec import FleetSpec, baton_batching
from loadtest.simulator.topology import Speed, Topology
from loadtest.traces import faster
from loadtest.workloads.draws import parse_draws
from loadtest.workloads.settings import WorkloadSettings
from loadtest.workloads.traced import read_trace
from router.admission.admission import AdmissionLimits
from router.roles.snapshot import Limits

DATA = tomllib.loads(Path(__file__).with_name("day.toml").read_text(encoding="utf-8"))
"""The set-up; tables have the numbers and their `source`."""

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
SEED = 1
TARGET = 0.9  # of requests inside both limits
LIMITS = Limits(DATA["limits"]["ttft_s"], DATA["limits"]["tpot_s"])


def day_preset(trace: Path | None = None) -> Preset:
    """The day, with Baton's controller.

    Args:
        trace: requests of this file come instead, over and over until the day is over.
    """
    return Preset(
        name="day",
        fleets={BATON: _fleet()},
        limits=LIMITS,
        target=TARGET,
        loads=(1.0,),
        unit="times the rate",
        seeds=(SEED,),
        make=day_arrivals if trace is None else partial(_traced, trace),
        ours=Contestant(BATON, AUTO),
        ratios=(),
        accepted=AdmissionLimits(),
        faults=_faults(DATA["fleet"]["workers"]),
        look_s=DATA["controller"]["look_s"],
    )


def _fleet() -> FleetSpec:
    shape = DATA["topology"]
    step_tokens = DATA["fleet"]["step_tokens"]
    worker = replace(
        FLEETS[BATON].worker,
        cost=published_cost(step_tokens),
        batching=baton_batching(step_tokens, LIMITS.tpot_s),
    )
    return FleetSpec(
        num_workers=DATA["fleet"]["workers"],
        worker=worker,
        moves=FLEETS[BATON].moves,
        topology=Topology(
            token_bytes=shape["token_bytes"],
            workers_per_node=shape["workers_per_node"],
            nodes_per_rack=shape["nodes_per_rack"],
            within_node=Speed(**shape["within_node"]),
            adapter=Speed(**shape["adapter"]),
            uplink=Speed(**shape["uplink"]),
        ),
        start_s=DATA["fleet"]["start_s"],
    )


def _faults(num_workers: int) -> tuple[Fault, ...]:
    """One worker after the other, far from the one before, and one whole node."""
    width, every_s = len(str(num_workers - 1)), DATA["faults"]["worker_every_h"] * HOUR_S
    node_size, node_s = DATA["topology"]["workers_per_node"], DATA["faults"]["node_at_h"] * HOUR_S
    single = [(number * every_s, 41 * number % num_workers) for number in range(1, math.ceil(DAY_S / every_s))]
    node = [(node_s, number) for number in range(node_size)]
    return tuple(Fault(at_s, Deed.KILL, f"worker-{number:0{width}}") for at_s, number in sorted(single + node))


def swing(at_s: float) -> float:
    """Where the day is: 1 at its busiest hour, -1 twelve hours from it."""
    return math.cos(2 * math.pi * (at_s - DATA["rate"]["peak_h"] * HOUR_S) / DAY_S)


def day_arrivals(load: float, seed: int) -> Iterator[Arrival]:
    """Requests of the day by time, the same for the same seed: Poisson at a rate that hardly changes between two.

    Args:
        load: times the rate.
        seed: of Python's generator.
    """
    draws, rate = random.Random(seed), DATA["rate"]  # noqa: S311 - a load, no secret
    conversation, agent = _Kind(DATA["conversation"]), _Kind(DATA["agent"])
    at_peak, at_least = DATA["conversation"]["share_at_peak"], DATA["conversation"]["share_at_least"]
    now_s = 0.0
    while True:
        height = swing(now_s)
        per_s = load * rate["mean_per_s"] * (1 + (rate["peak_to_mean"] - 1) * height)
        now_s += draws.expovariate(per_s)
        if now_s >= DAY_S:
            return
        share = at_least + (at_peak - at_least) * (1 + height) / 2
        yield (conversation if draws.random() < share else agent).request(now_s, draws)


class _Kind:
    """Requests of one kind."""

    def __init__(self, values: dict[str, Any]) -> None:
        self._prompt = parse_draws(values["prompt_tokens"], "prompt_tokens of day.toml")
        self._answer = parse_draws(values["answer_tokens"], "answer_tokens of day.toml")
        num_blocks = values.get("instructions_tokens", 0) // FLEETS[BATON].worker.prefix_block_tokens
        firsts = range(0, values.get("instructions", 1) * num_blocks, num_blocks) if num_blocks else (0,)
        self._shared: Sequence[tuple[int, ...]] = [tuple(range(first, first + num_blocks)) for first in firsts]

    def request(self, at_s: float, draws: random.Random) -> Arrival:
        """The next one."""
        lengths = self._prompt.count(draws), self._answer.count(draws)
        return Arrival(at_s, *lengths, draws.choice(self._shared))


def _traced(trace: Path, load: float, seed: int) -> Iterator[Arrival]:  # noqa: ARG001 - nothing is drawn
    """A trace again and again, one after the other."""
    arrivals = faster(read_trace(WorkloadSettings(), trace).arrivals, load)
    length_s = arrivals[-1].at_s + arrivals[-1].at_s / len(arrivals)
    for turn in count():
        for arrival in arrivals:
            at_s = arrival.at_s + turn * length_s
            if at_s >= DAY_S:
                return
            yield replace(arrival, at_s=at_s)
