"""The engine beside transformers; with it its growth, other servers, and a whole cluster around it."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.bench.checks import at_least
from deploy.bench.cluster_load import cluster_checks, measure_cluster, measure_peer
from deploy.bench.engine_run import run_engine
from deploy.bench.growth import growth_checks, measure_growth
from deploy.bench.transformers_baseline import run_baseline
from deploy.cluster import Say
from deploy.config import ServeConfig
from engine.config import ModelConfig
from engine.sizing import serving_dtype

DECODE_CONTEXT = 64
DECODE_STEPS = 32
TINY_DECODE_FACTORS = {1: 2.5, 8: 3.0, 32: 2.2}
OTHER_DECODE_FACTOR = 2.2
PREFILL_FACTOR = 1.3


@dataclass(frozen=True, slots=True)
class EngineBench:
    """What to measure.

    Attributes:
        model_dir: checkpoint folder.
        is_tiny: whether it is the one of `write_tiny_model`, for which the targets are set.
        batches: sequences that decode at once, one measurement each.
        prompt: tokens of the prompt that is prefilled.
        dtype: of weights and KV.
        kernels: as for `baton serve`.
        num_rounds: ours and transformers take turns this often; the fastest of each counts, for noise only slows.
        peers: name and URL of OpenAI-style servers to measure too.
    """

    model_dir: Path
    is_tiny: bool
    batches: tuple[int, ...]
    prompt: int
    dtype: str
    kernels: str
    num_rounds: int
    peers: dict[str, str]

    def run(self, say: Say, *, with_growth: bool, with_cluster: bool) -> dict[str, Any]:
        """Everything, one after the other; the list `checks` has one entry per target."""
        result: dict[str, Any] = {"cores": len(os.sched_getaffinity(0)), "model": str(self.model_dir)}
        result["rounds"] = rounds = [self._round(number, say) for number in range(self.num_rounds)]
        result["engine"] = {
            "load_s": rounds[0]["baton"]["load_s"],
            "kernels": rounds[0]["baton"]["kernels"],
            "decode_tokens_per_s": {batch: fastest(rounds, "baton", batch) for batch in self.batches},
            "prefill_tokens_per_s": max(r["baton"]["prefill_tokens_per_s"] for r in rounds),
        }
        result["transformers"] = {
            "decode_tokens_per_s": {batch: fastest(rounds, "transformers", batch) for batch in self.batches},
            "prefill_tokens_per_s": max(r["transformers"]["prefill_tokens_per_s"] for r in rounds),
        }
        result["checks"] = self._engine_checks(result)
        if with_growth:
            result["growth"] = measure_growth(self._job(), say, is_tiny=self.is_tiny)
            result["checks"] += growth_checks(result["growth"])
        result["peers"] = {name: measure_peer(url, self.model_dir, say) for name, url in self.peers.items()}
        if with_cluster:
            config = ServeConfig(
                model=self.model_dir,
                dtype=self.dtype,
                kernels=self.kernels,
                enable_prefix_caching=False,  # the chat template begins every prompt, and all of it is to be computed
                auto_roles=False,  # the figures are of one split
                port=0,
                ask="",
            )
            result["cluster"] = measure_cluster(config, self.model_dir, say)
            result["checks"] += cluster_checks(result["cluster"], result["peers"], is_tiny=self.is_tiny)
        return result

    def _round(self, number: int, say: Say) -> dict[str, Any]:
        say(f"round {number + 1} of {self.num_rounds}: baton's engine")
        ours = run_engine(
            self._job(
                kv_tokens=max(self.prompt, max(self.batches) * 2 * (DECODE_CONTEXT + DECODE_STEPS)),
                prefill=[self.prompt],
                decode=[(batch, DECODE_CONTEXT) for batch in self.batches],
                steps=DECODE_STEPS,
            )
        )
        say(f"round {number + 1} of {self.num_rounds}: transformers")
        dtype = serving_dtype(self.dtype, ModelConfig.from_dir(self.model_dir))
        decodes = [([[7 + i] * DECODE_CONTEXT for i in range(batch)], DECODE_STEPS) for batch in self.batches]
        *theirs, prompt = run_baseline(self.model_dir, dtype, [*decodes, ([[7] * self.prompt], 1)])
        return {
            "baton": {
                "load_s": ours["load_s"],
                "kernels": ours["kernels"],
                "decode_tokens_per_s": {
                    batch: batch / step_s for batch, step_s in zip(self.batches, ours["decode"], strict=True)
                },
                "prefill_tokens_per_s": self.prompt / ours["prefill"][0],
            },
            "transformers": {
                "decode_tokens_per_s": {
                    batch: run["decode_tokens_per_s"] for batch, run in zip(self.batches, theirs, strict=True)
                },
                "prefill_tokens_per_s": 1000 * self.prompt / prompt["ttft_ms"],
            },
        }

    def _job(self, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - a JSON object
        return {
            "model_dir": str(self.model_dir),
            "dtype": self.dtype,
            "kernels": self.kernels,
            "threads": len(os.sched_getaffinity(0)),
            **fields,
        }

    def _engine_checks(self, result: dict[str, Any]) -> list[dict[str, Any]]:
        ours, theirs = result["engine"], result["transformers"]
        checks = []
        for batch in self.batches:
            ratio = ours["decode_tokens_per_s"][batch] / theirs["decode_tokens_per_s"][batch]
            target = TINY_DECODE_FACTORS.get(batch, OTHER_DECODE_FACTOR) if self.is_tiny else OTHER_DECODE_FACTOR
            checks.append(at_least(f"vs_transformers_decode_b{batch}", ratio, "x", target))
        ratio = ours["prefill_tokens_per_s"] / theirs["prefill_tokens_per_s"]
        checks.append(at_least(f"vs_transformers_prefill_{self.prompt}", ratio, "x", PREFILL_FACTOR))
        return checks


def fastest(rounds: list[dict[str, Any]], who: str, batch: int) -> float:
    """Decode tokens per second of the best round."""
    return float(max(r[who]["decode_tokens_per_s"][batch] for r in rounds))
