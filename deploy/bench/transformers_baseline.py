"""transformers' `generate` on the same checkpoint and prompts, in a process of its own, to compare with.

Run as `python -m deploy.bench.transformers_baseline` by `deploy.bench.jobs`.
"""

import time
from pathlib import Path
from typing import Any

from deploy.bench.jobs import answer_job, run_job


def run_baseline(model_dir: Path, dtype: str, batches: list[tuple[list[list[int]], int]]) -> list[dict[str, float]]:
    """Greedy generation of each batch, with as many threads as there are cores.

    Args:
        model_dir: checkpoint folder.
        dtype: a torch type's name.
        batches: prompts as token ids, all of a batch of one length, and the tokens to generate for each, exactly.

    Returns:
        Per batch: `batch` (its size), `ttft_ms` (time of the prompt and one token), `tpot_ms`, `output_tokens_per_s`,
        and `decode_tokens_per_s` (without the prompt and the first token).
    """
    job = {"model_dir": str(model_dir), "dtype": dtype, "batches": batches}
    results: list[dict[str, float]] = run_job("deploy.bench.transformers_baseline", job)
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

    return [figures(generate_s, prompts, max_tokens) for prompts, max_tokens in job["batches"]]


def figures(generate_s: Any, prompts: list[list[int]], max_tokens: int) -> dict[str, float]:  # noqa: ANN401 - a closure
    """One entry of `run_baseline`."""
    generate_s(prompts, 2)  # warms up
    first_s = min(generate_s(prompts, 1) for _ in range(2))
    whole_s = generate_s(prompts, max_tokens)
    num_steps = max(1, max_tokens - 1)
    decode_s = max(whole_s - first_s, 1e-9)
    return {
        "batch": len(prompts),
        "ttft_ms": 1000 * first_s,
        "tpot_ms": 1000 * decode_s / num_steps,
        "output_tokens_per_s": len(prompts) * max_tokens / whole_s,
        "decode_tokens_per_s": len(prompts) * num_steps / decode_s,
    }


if __name__ == "__main__":
    answer_job(measure)
