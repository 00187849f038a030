"""Baton's engine alone, in a process of its own: the step as the worker calls it, without router, network or Ray.

Run as `python -m deploy.bench.engine_run` by `deploy.bench.jobs`. Every figure is a median over several steps.
"""

import statistics
import time
from pathlib import Path
from typing import Any

import torch

from core.sampling import SamplingParams
from deploy.bench.jobs import answer_job, run_job
from engine.config import ModelConfig
from engine.engine import Engine
from engine.plan import Draw, SequenceSlice, SliceKind, StepPlan
from engine.sizing import kv_layout

GREEDY = SamplingParams(temperature=0.0)
BLOCK_TOKENS = 16
KV_VALUE = 0.01  # of blocks that nothing was computed for: memory must be touched to be read from


class EngineRun:
    """An engine with a pool for the largest thing it will be asked.

    Args:
        job: `model_dir`, `dtype`, `kernels`, `threads`, and `kv_tokens`, the size of the pool.
    """

    def __init__(self, job: dict[str, Any]) -> None:
        torch.set_num_threads(job["threads"])
        model_dir = Path(job["model_dir"])
        config = ModelConfig.from_dir(model_dir)
        self.num_blocks = kv_layout(config, BLOCK_TOKENS, "float32").blocks_for(job["kv_tokens"])
        max_model_len = min(config.max_position_embeddings, self.num_blocks * BLOCK_TOKENS)
        started_s = time.perf_counter()
        self.engine = Engine.load(
            model_dir,
            dtype=job["dtype"],
            num_blocks=self.num_blocks,
            max_model_len=max_model_len,
            kernels=job["kernels"],
        )
        self.load_s = time.perf_counter() - started_s

    def prefill_s(self, num_tokens: int, repeats: int) -> float:
        """Seconds of one prompt in one step."""
        token_ids = [token % self.engine.config.vocab_size for token in range(num_tokens)]
        block_ids = range(-(-num_tokens // BLOCK_TOKENS))
        prompt = SequenceSlice("prompt", SliceKind.PROMPT, token_ids, 0, block_ids, Draw(GREEDY, 0))
        self._step_s(prompt)
        return statistics.median(self._step_s(prompt) for _ in range(repeats))

    def decode_s(self, batch: int, context: int, steps: int) -> float:
        """Seconds of a step of `batch` sequences that are `context` tokens long at first and grow by one each."""
        num_blocks = -(-(context + steps + 1) // BLOCK_TOKENS)
        assert batch * num_blocks <= self.num_blocks, f"{batch} x {num_blocks} blocks of {self.num_blocks}"
        self.engine.pool.tensor[: batch * num_blocks].fill_(KV_VALUE)
        tables = [range(i * num_blocks, (i + 1) * num_blocks) for i in range(batch)]
        tokens = {str(i): i % self.engine.config.vocab_size for i in range(batch)}
        times = []
        for position in range(context - 1, context + steps):
            draw = Draw(GREEDY, position)
            slices = [
                SequenceSlice(str(i), SliceKind.DECODE, (tokens[str(i)],), position, table, draw)
                for i, table in enumerate(tables)
            ]
            started_s = time.perf_counter()
            tokens = dict(self.engine.step(StepPlan(tuple(slices))).tokens)
            times.append(time.perf_counter() - started_s)
        return statistics.median(times[1:])

    def _step_s(self, piece: SequenceSlice) -> float:
        started_s = time.perf_counter()
        self.engine.step(StepPlan((piece,)))
        return time.perf_counter() - started_s


def run_engine(job: dict[str, Any]) -> dict[str, Any]:
    """Measures in a process of its own.

    Args:
        job: that of `EngineRun`, and `prefill` (numbers of tokens), `decode` (pairs of batch and context), `steps`.

    Returns:
        `load_s`, `kernels` (`native` or `torch`), `prefill` and `decode`: seconds per step in the job's order.
    """
    result: dict[str, Any] = run_job("deploy.bench.engine_run", job)
    return result


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """What `run_engine` returns."""
    run = EngineRun(job)
    return {
        "load_s": run.load_s,
        "kernels": "torch" if run.engine.kernels is None else "native",
        "prefill": [run.prefill_s(num_tokens, repeats=5) for num_tokens in job["prefill"]],
        "decode": [run.decode_s(batch, context, job["steps"]) for batch, context in job["decode"]],
    }


if __name__ == "__main__":
    answer_job(measure)
