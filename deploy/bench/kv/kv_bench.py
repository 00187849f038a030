"""Moving KV, measured from the bytes to the request, in one run."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.bench.kv.byte_rates import KIB, MIB, ByteRates
from deploy.bench.kv.contestants import SHARED_MEMORY, TCP
from deploy.bench.kv.handoffs import handoff_checks, measure_idle, measure_overhead, measure_overlap
from deploy.bench.kv.worker_pair import PairPlan, WorkerPair
from deploy.cluster import Say

PATHS = {"shared memory": SHARED_MEMORY, "tcp": TCP}
MAIN_PATH = "shared memory"
NUM_HANDOFFS = 100


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
    """

    pool_bytes: int
    block_sizes: tuple[int, ...]
    num_byte_rounds: int
    prompt_tokens: int
    num_prompt_rounds: int
    idle_s: float

    def run(self, model_dir: Path, say: Say) -> dict[str, Any]:
        """Everything, one after the other; the list `checks` has one entry per target."""
        rates = ByteRates(self.pool_bytes, self.block_sizes, self.num_byte_rounds)
        result: dict[str, Any] = {"cores": len(os.sched_getaffinity(0)), "model": str(model_dir)}
        result["bytes"] = rates.measure(say)
        result["handoffs"] = {}
        for path, environment in PATHS.items():
            say(f"starting two workers over {path}")
            with WorkerPair(PairPlan(model_dir, self.prompt_tokens), environment, {}) as pair:
                result["handoffs"][path] = self._measure_pair(pair, path, say)
                if path == MAIN_PATH:
                    say(f"{NUM_HANDOFFS} handoffs of one block")
                    result["overhead"] = measure_overhead(pair, NUM_HANDOFFS)
        result["checks"] = rates.checks() + handoff_checks(result["handoffs"], result["overhead"])
        return result

    def _measure_pair(self, pair: WorkerPair, path: str, say: Say) -> dict[str, Any]:
        pair.warm_up()
        say(f"prompts of {pair.longest_prompt} tokens over {path}")
        overlap = measure_overlap(pair, pair.longest_prompt, self.num_prompt_rounds)
        say(f"two idle workers connected over {path}")
        return {**overlap, "idle_cpu_fraction": measure_idle(pair, self.idle_s)}


FULL = KvBench(
    pool_bytes=256 * MIB,
    block_sizes=(16 * KIB, 64 * KIB, 256 * KIB, MIB, 4 * MIB, 8 * MIB),
    num_byte_rounds=5,
    prompt_tokens=4096,
    num_prompt_rounds=3,
    idle_s=4.0,
)
QUICK = KvBench(
    pool_bytes=32 * MIB,
    block_sizes=(64 * KIB, MIB),
    num_byte_rounds=2,
    prompt_tokens=512,
    num_prompt_rounds=1,
    idle_s=1.0,
)
