"""The published set-up on which Arrow is compared with static splits, and the same fleet with Baton's workers.

Source of every number here but those marked as ours: Narwhal, github.com/athrael-soju/Narwhal (Apache-2.0),
`demo/run_demo.py` (commit be06a26) and `src/narwhal/{sim,local}.py` (8dea4fc, be06a26), an independent implementation
of Arrow (arXiv:2505.11916v2) whose demo names the paper's sections: 8 instances (6.1), limits and rates of the row
"Azure Code, Qwen3-32B" of Table 1, curves of the forms of 3.1, local scheduling of 5.4.

Published result, as pinned by its test `tests/test_sim.py`: at 2.4 requests/s the split of 4 prefill and 4 decode
instances has 100 % of requests inside both limits, all instances for both halves 98 %, Arrow 100 %; at 6.4 requests/s
33 %, 30 % and 54 %. Re-running its loop gives 87 % and 89 % at 3.2 requests/s for the best split and for Arrow.
"""

from core.cost import CostModel, Curve
from loadtest.arrivals import Arrival, Segment, segmented_arrivals
from loadtest.policies.by_name import ARROW, AUTO, MIXED, split_names
from loadtest.presets.preset import CLAIRVOYANT, Contestant, Preset, Ratio
from loadtest.simulator.spec import Batching, FleetSpec, MoveCosts, WorkerSpec, baton_batching
from router.roles.snapshot import Limits

NUM_WORKERS = 8
LIMITS = Limits(ttft_s=10.0, tpot_s=0.125)
RATES = (0.6, 1.0, 1.6, 2.4, 3.2, 4.4, 5.4, 6.4)  # requests per second
SEED = 7
TARGET = 0.9  # of requests inside both limits: what "sustained" means
SEGMENTS = (
    Segment(30.0, prompt_tokens=(200, 400), answer_tokens=(400, 600)),
    Segment(30.0, prompt_tokens=(6000, 9000), answer_tokens=(30, 60)),
    Segment(30.0, prompt_tokens=(200, 400), answer_tokens=(400, 600)),
)

CHUNK_TOKENS = 2048
COST = CostModel(
    # A prompt of n tokens takes 2e-8 n^2 + 6e-5 n + 0.005 s. The last term falls out of the published simulator,
    # which takes differences; here every step pays it.
    chunk_tokens=CHUNK_TOKENS,
    prefill=Curve(((1, 0.005 + 6e-5), (CHUNK_TOKENS, 0.005 + 6e-5 * CHUNK_TOKENS))),
    prefill_pair_s=4e-8,  # n^2 / 2 pairs, see `core.cost.chunk_pairs`
    # A step that attends to n tokens takes 3e-6 n + 0.012 s.
    decode=Curve(((1, 0.012),)),
    decode_context_token_s=3e-6,
)
MOVES = MoveCosts(
    handoff_s=0.05,  # whatever the length, and only between two instances
    pause_s=0.05,  # ours, as nobody migrates there: a migration copies for as long as a handoff, then stands still
    order_s=0.005,  # ours: a round trip of the control plane
)
KV_TOKENS = 400_000  # ours: room is not limited in the published simulator, and never is here
MAX_NUM_SEQS = 256  # ours, likewise

PUBLISHED_BATCHING = Batching(step_tokens=16_384, chunk_tokens=CHUNK_TOKENS, counts_contexts=True, tick_s=0.01)
"""Of Narwhal's instances: every queued prompt gets a chunk in every step, and its loop turns every 10 ms."""
BATON_BATCHING = baton_batching(CHUNK_TOKENS, LIMITS.tpot_s)


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
        target=TARGET,
        loads=RATES,
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
