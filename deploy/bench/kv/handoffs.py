"""What a handoff costs a request: hidden behind compute, beside the bytes, and while nothing moves."""

import statistics
import time
from typing import Any

import numpy as np

from deploy.bench.checks import at_least, at_most
from deploy.bench.kv.worker_pair import WorkerPair

HIDDEN_FRACTION = 0.9
TTFT_VS_COLOCATED = 1.10
OVERHEAD_MS = 1.0
IDLE_CPU = 0.03
SHORT_PROMPT = 4  # tokens: one block, the last of its prompt
SETTLE_S = 0.5  # until what follows a handoff has ended, before idleness is measured


def measure_overlap(pair: WorkerPair, num_tokens: int, num_rounds: int) -> dict[str, Any]:
    """Long prompts, alone and with a handoff in turn; medians but for the hidden fraction, which is of all bytes.

    `colocated_ttft_ms` is of the same engine in the same process, which computes the same number of tokens and hands
    over nothing. `hidden_fraction` is 1 less the share of the transfer time that came after the last prompt token.
    """
    alone, handed = [], []
    for _ in range(num_rounds):
        alone.append(pair.prefill_s(num_tokens))
        handed.append(pair.hand_over(num_tokens))
    busy_s = sum(handoff.sent.busy_s for handoff in handed)
    exposed_s = sum(handoff.sent.exposed_s for handoff in handed)
    return {
        "prompt_tokens": num_tokens,
        "megabytes": handed[0].sent.num_bytes / 1e6,
        "colocated_ttft_ms": 1000 * statistics.median(alone),
        "ttft_ms": 1000 * statistics.median(handoff.ttft_s for handoff in handed),
        "second_token_ms": 1000 * statistics.median(handoff.second_token_s for handoff in handed),
        "transfer_ms": 1000 * busy_s / num_rounds,
        "exposed_ms": 1000 * exposed_s / num_rounds,
        "after_prompt_ms": 1000 * statistics.median(handoff.sent.after_prompt_s for handoff in handed),
        "hidden_fraction": 1.0 - exposed_s / busy_s,
    }


def measure_overhead(pair: WorkerPair, num_handoffs: int) -> dict[str, Any]:
    """Milliseconds that a handoff of one block between two idle workers takes beside its bytes.

        last prompt token      posted          arrived        acknowledged
        |----- overhead -------|=== bytes =====|-- overhead --|

    That is the time from the last prompt token computed to the target's acknowledgement, less the time in between in
    which bytes were under way. What comes before the last prompt token is hidden behind compute.
    `acknowledge_ms_p50` is of the part after the last block's arrival.
    """
    handoffs = [pair.hand_over(SHORT_PROMPT).sent for _ in range(num_handoffs)]
    p50, p95 = np.percentile([1000 * (sent.after_prompt_s - sent.exposed_s) for sent in handoffs], (50, 95))
    return {
        "count": num_handoffs,
        "ms_p50": float(p50),
        "ms_p95": float(p95),
        "acknowledge_ms_p50": 1000 * statistics.median(sent.acknowledge_s for sent in handoffs),
    }


def measure_idle(pair: WorkerPair, seconds: float) -> float:
    """The part of a core that the busier of two connected workers uses while nobody asks for anything."""
    time.sleep(SETTLE_S)
    before_s, started_s = pair.cpu_s(), time.perf_counter()
    time.sleep(seconds)
    after_s, passed_s = pair.cpu_s(), time.perf_counter() - started_s
    return max(after - before for before, after in zip(before_s, after_s, strict=True)) / passed_s


def handoff_checks(runs: list[dict[str, Any]], overhead: dict[str, Any]) -> list[dict[str, Any]]:
    """The targets; each for the pair of workers that misses it most.

    Args:
        runs: of each pair what `measure_overlap` returned, and `idle_cpu_fraction`.
        overhead: what `measure_overhead` returned.
    """
    ttft = max(run["ttft_ms"] / run["colocated_ttft_ms"] for run in runs)
    return [
        at_least("hidden_fraction", min(run["hidden_fraction"] for run in runs), "of transfer time", HIDDEN_FRACTION),
        at_most("ttft_vs_colocated", ttft, "x", TTFT_VS_COLOCATED),
        at_most("handoff_overhead_ms_p50", overhead["ms_p50"], "ms", OVERHEAD_MS),
        at_most("idle_cpu_fraction", max(run["idle_cpu_fraction"] for run in runs), "of a core", IDLE_CPU),
    ]
