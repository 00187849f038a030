"""Moving KV, measured from the bytes to the request, in one run."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.bench.kv.byte_rates import KIB, MIB, ByteRates
from deploy.bench.kv.contestants import SHARED_MEMORY, TCP
from deploy.bench.kv.handoffs import handoff_checks, measure_idle, measure_overhead, measure_overlap
from deploy.bench.kv.worker_pair import PairPlan, WorkerPair
from deploy.cluster import Say

NUM_HANDOFFS = 100


@dataclass(frozen=True, slots=True)
class PairCase:
    """Two workers that handoffs are measured between.

    Attributes:
        name: as figures have it.
        environment: variables of both, which decide the path of the bytes.
        settings: of both, by the names of `WorkerConfig`.
        has_targets: whether the targets are set for it.
        has_overhead: whether the cost of a handoff beside its bytes is measured here.
    """

    name: str
    environment: Mapping[str, str]
    settings: Mapping[str, Any] = field(default_factory=dict)
    has_targets: bool = True
    has_overhead: bool = False


PATHS = (PairCase("shm", SHARED_MEMORY, has_overhead=True), PairCase("tcp", TCP))
VERIFIED = tuple(
    PairCase(f"verify {verify}", SHARED_MEMORY, {"kv_verify": verify}, has_targets=False)
    for verify in ("sample", "always")
)


@dataclass(frozen=True, slots=True)
class KvBench:
    """How much to measure.

    Attributes:
        pool_bytes: of each end of each contestant.
        block_sizes: in bytes.
        num_byte_rounds: turns of each contestant at each size.
        prompt_tokens: of a long prompt; less when the model's context is shorter.
        num_prompt_rounds: long prompts on each path, alone and with a handoff.
        idle_s: for how long the workers are watched while idle.
        cases: the pairs of workers to measure.
    """

    pool_bytes: int
    block_sizes: tuple[int, ...]
    num_byte_rounds: int
    prompt_tokens: int
    num_prompt_rounds: int
    idle_s: float
    cases: tuple[PairCase, ...]

    def run(self, model_dir: Path, say: Say) -> dict[str, Any]:
        """Everything, one after the other; the list `checks` has one entry per target."""
        rates = ByteRates(self.pool_bytes, self.block_sizes, self.num_byte_rounds)
        result: dict[str, Any] = {"cores": len(os.sched_getaffinity(0)), "model": str(model_dir)}
        result["bytes"] = rates.measure(say)
        result["handoffs"] = {}
        for case in self.cases:
            say(f"starting two workers: {case.name}")
            plan = PairPlan(model_dir, self.prompt_tokens)
            with WorkerPair(plan, case.environment, case.settings) as pair:
                result["handoffs"][case.name] = self._measure_pair(pair, say)
                if case.has_overhead:
                    say(f"{NUM_HANDOFFS} handoffs of one block")
                    result["overhead"] = measure_overhead(pair, NUM_HANDOFFS)
        judged = [result["handoffs"][case.name] for case in self.cases if case.has_targets]
        result["checks"] = rates.checks() + handoff_checks(judged, result["overhead"])
        return result

    def _measure_pair(self, pair: WorkerPair, say: Say) -> dict[str, Any]:
        pair.warm_up()
        say(f"prompts of {pair.longest_prompt} tokens")
        overlap = measure_overlap(pair, pair.longest_prompt, self.num_prompt_rounds)
        say("two idle workers")
        return {**overlap, "idle_cpu_fraction": measure_idle(pair, self.idle_s)}


FULL = KvBench(
    pool_bytes=256 * MIB,
    block_sizes=(16 * KIB, 64 * KIB, 256 * KIB, MIB, 4 * MIB, 8 * MIB),
    num_byte_rounds=4,
    prompt_tokens=4096,
    num_prompt_rounds=3,
    idle_s=4.0,
    cases=(*PATHS, *VERIFIED),
)
QUICK = KvBench(
    pool_bytes=32 * MIB,
    block_sizes=(64 * KIB, MIB),
    num_byte_rounds=2,
    prompt_tokens=1024,
    num_prompt_rounds=1,
    idle_s=1.0,
    cases=PATHS,
)
