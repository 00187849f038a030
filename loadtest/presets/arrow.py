"""The published set-up on which Arrow is compared with static splits, and the same fleet with Baton's workers.

Every number stands with its source in `arrow.toml`. Published result, as pinned by the test `tests/test_sim.py` of
Narwhal: at 2.4 requests/s the split of 4 prefill and 4 decode instances has 100 % of requests inside both limits, all
instances for both halves 98 %, Arrow 100 %; at 6.4 requests/s 33 %, 30 % and 54 %. Re-running its loop gives 87 % and
89 % at 3.2 requests/s for the best split and for Arrow.
"""

import tomllib
from pathlib import Path

from core.cost import CostModel, Curve
from loadtest.arrivals import Arrival, Segment, segmented_arrivals
from loadtest.policies.by_name import ARROW, AUTO, MIXED, split_names
from loadtest.presets.preset import CLAIRVOYANT, Contestant, Preset, Ratio
from loadtest.simulator.spec import Batching, FleetSpec, MoveCosts, WorkerSpec, baton_batching
from router.roles.snapshot import Limits

DATA = tomllib.loads(Path(__file__).with_name("arrow.toml").read_text(encoding="utf-8"))
"""The set-up; tables have the numbers and their `source`."""

NUM_WORKERS: int = DATA["instances"]["number"]
LIMITS = Limits(DATA["limits"]["ttft_s"], DATA["limits"]["tpot_s"])
SEED: int = DATA["arrivals"]["seed"]
SEGMENTS = tuple(
    Segment(part["duration_s"], tuple(part["prompt_tokens"]), tuple(part["answer_tokens"]))
    for part in DATA["segments"]
)


def published_cost(chunk_tokens: int) -> CostModel:
    """The published curves, for steps of so many prompt tokens."""
    prompt, decode = DATA["prompt_cost"], DATA["decode_cost"]
    return CostModel(
        chunk_tokens=chunk_tokens,
        prefill=Curve(
            tuple((num, prompt["step_s"] + prompt["token_s"] * num) for num in (1, chunk_tokens)),
        ),
        prefill_pair_s=2 * prompt["square_s"],  # n^2 / 2 pairs, see `core.cost.chunk_pairs`
        decode=Curve(((1, decode["step_s"]),)),
        decode_context_token_s=decode["token_s"],
    )


COST = published_cost(DATA["prompt_cost"]["chunk_tokens"])
MOVES = MoveCosts(
    handoff_s=DATA["handoff"]["seconds"],
    pause_s=DATA["migration"]["pause_s"],
    order_s=DATA["order"]["seconds"],
)
KV_TOKENS: int = DATA["room"]["kv_tokens"]
MAX_NUM_SEQS: int = DATA["room"]["max_num_seqs"]

PUBLISHED_BATCHING = Batching(
    step_tokens=DATA["published_steps"]["step_tokens"],
    chunk_tokens=COST.chunk_tokens,
    counts_contexts=True,
    tick_s=DATA["published_steps"]["tick_s"],
)
"""Of Narwhal's instances."""
BATON_BATCHING = baton_batching(COST.chunk_tokens, LIMITS.tpot_s)


PUBLISHED, BATON = "published", "baton"
FLEETS = {
    name: FleetSpec(NUM_WORKERS, WorkerSpec(COST, batching, MAX_NUM_SEQS, KV_TOKENS), MOVES)
    for name, batching in ((PUBLISHED, PUBLISHED_BATCHING), (BATON, BATON_BATCHING))
}


def arrow_preset() -> Preset:
    """The set-up: Baton on its own workers, beside what is published on the published ones, and on its own."""
    names = (*split_names(NUM_WORKERS), MIXED)
    statics = {kind: tuple(Contestant(kind, name) for name in names) for kind in FLEETS}
    return Preset(
        name="arrow",
        fleets=FLEETS,
        limits=LIMITS,
        target=DATA["attainment"]["target"],
        loads=tuple(DATA["load"]["rates_per_s"]),
        unit="requests/s",
        seeds=(SEED,),
        make=load_at,
        ours=Contestant(BATON, AUTO),
        ratios=(
            Ratio("sustained_vs_best_static", statics[PUBLISHED], 1.3),
            Ratio("sustained_vs_arrow", (Contestant(PUBLISHED, ARROW),), 1.3),
            Ratio("sustained_vs_clairvoyant", (Contestant(BATON, CLAIRVOYANT),), 0.9),
            # What of that is the roles' doing, and not the workers':
            Ratio("sustained_vs_best_static_same_workers", statics[BATON], 1.3),
            Ratio("sustained_vs_arrow_same_workers", (Contestant(BATON, ARROW),), 1.3),
        ),
        others=(Contestant(PUBLISHED, AUTO),),
    )


def load_at(rate: float, seed: int) -> list[Arrival]:
    """The three segments at a rate."""
    return segmented_arrivals(SEGMENTS, rate, seed)
