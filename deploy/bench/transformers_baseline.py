"""transformers' `generate` on the same checkpoint and prompts, in a process of its own, to compare with.

Run as `python -m deploy.bench.transformers_baseline`, with a JSON job on stdin; prints JSON.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from core.errors import InternalError

TIMEOUT_S = 1800.0


def run_baseline(model_dir: Path, dtype: str, prompts: list[list[int]], max_tokens: int) -> list[dict[str, float]]:
    """Batch 1 and a batch of all prompts, greedy, with as many threads as there are cores.

    Args:
        model_dir: checkpoint folder.
        dtype: a torch type's name.
        prompts: token ids, all of one length.
        max_tokens: tokens to generate for each, exactly.

    Returns:
        Per batch size: `batch`, `ttft_ms` (time of the prompt and one token), `tpot_ms`, `output_tokens_per_s`.
    """
    job = {"model_dir": str(model_dir), "dtype": dtype, "prompts": prompts, "max_tokens": max_tokens}
    finished = subprocess.run(
        [sys.executable, "-m", "deploy.bench.transformers_baseline"],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    if finished.returncode != 0:
        raise InternalError(f"transformers failed: {finished.stderr[-2000:]}")
    results: list[dict[str, float]] = json.loads(finished.stdout.splitlines()[-1])
    return results


def measure(job: dict[str, Any]) -> list[dict[str, float]]:
    """What `run_baseline` returns; imports torch and transformers."""
    import torch  # noqa: PLC0415 - only the process that measures pays for the import
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    model = AutoModelForCausalLM.from_pretrained(job["model_dir"], dtype=getattr(torch, job["dtype"]))
    model.generation_config.temperature = model.generation_config.top_p = None  # greedy has neither

    def generate_s(prompts: list[list[int]], max_tokens: int) -> float:
        ids = torch.tensor(prompts)
        mask = torch.ones_like(ids)
        started_s = time.perf_counter()
        model.generate(
            ids, attention_mask=mask, do_sample=False, min_new_tokens=max_tokens, max_new_tokens=max_tokens
        )
        return time.perf_counter() - started_s

    results = []
    for prompts in (job["prompts"][:1], job["prompts"]):
        generate_s(prompts, 2)  # warms up
        first_s = generate_s(prompts, 1)
        whole_s = generate_s(prompts, job["max_tokens"])
        results.append(
            {
                "batch": len(prompts),
                "ttft_ms": 1000 * first_s,
                "tpot_ms": 1000 * (whole_s - first_s) / max(1, job["max_tokens"] - 1),
                "output_tokens_per_s": len(prompts) * job["max_tokens"] / whole_s,
            }
        )
    return results


if __name__ == "__main__":
    print(json.dumps(measure(json.load(sys.stdin))))
