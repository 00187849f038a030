"""One load on a whole server, ours or another's: many requests at once, then one after the other."""

import asyncio
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx

from deploy.bench.checks import at_least, at_most
from deploy.bench.load import LoadResult, greedy_body, run_clients
from deploy.cluster import Say, run_cluster
from deploy.config import ServeConfig
from router.text.tokenizer import TextCodec

NUM_TOGETHER = 32
NUM_ALONE = 8
PROMPT_TOKENS = 256
ANSWER_TOKENS = 64
# vLLM-CPU 0.32 with its NixlConnector on two cores and this load: 332 to 367 tokens/s in several runs; the target is
# 2.5 times the best of them, or of what the server named `--peer vllm=URL` does in the same run.
VLLM_TOKENS_PER_S = 367.0
THROUGHPUT_FACTOR = 2.5
TTFT_MS = 60.0
TPOT_MS = 9.0
READY_S = 20.0


def measure_cluster(config: ServeConfig, model_dir: Path, say: Say) -> dict[str, Any]:
    """Starts a cluster, loads it, stops it: `ready_s` and what `measure_server` returns."""
    started_s = time.perf_counter()
    with run_cluster(config, model_dir, say) as cluster:
        ready_s = time.perf_counter() - started_s
        return {"ready_s": ready_s, **measure_server(cluster.url, config.model_name, TextCodec.load(model_dir), say)}


def measure_peer(url: str, model_dir: Path, say: Say) -> dict[str, Any]:
    """The same load on a running OpenAI-style server that serves the same checkpoint under any name."""
    listed = httpx.get(f"{url.rstrip('/')}/v1/models", timeout=10.0, trust_env=False).raise_for_status().json()
    return measure_server(url, listed["data"][0]["id"], TextCodec.load(model_dir), say)


def measure_server(url: str, model: str, codec: TextCodec, say: Say) -> dict[str, Any]:
    """`together` and `alone`, each a `LoadResult` as a dictionary."""
    bodies = [chat_body(model, codec, number) for number in range(1 + NUM_TOGETHER + NUM_ALONE)]
    asyncio.run(run_clients(url, [bodies[:1]]))  # warms up
    runs = {"together": [[body] for body in bodies[1:-NUM_ALONE]], "alone": [bodies[-NUM_ALONE:]]}
    results: dict[str, LoadResult] = {}
    for name, clients in runs.items():
        say(f"{url}: {sum(map(len, clients))} requests {name}")
        results[name] = asyncio.run(run_clients(url, clients))
    return {name: asdict(load) for name, load in results.items()}


def chat_body(model: str, codec: TextCodec, number: int) -> dict[str, Any]:
    """A request of `PROMPT_TOKENS` tokens and its template."""
    return greedy_body(model, prompt_text(codec, number, PROMPT_TOKENS), ANSWER_TOKENS)


def prompt_text(codec: TextCodec, number: int, num_tokens: int) -> str:
    """A text of so many tokens, unlike those of other numbers from its first word: no cache helps."""
    return codec.decode(prompt_ids(codec, number, num_tokens))


def prompt_ids(codec: TextCodec, number: int, num_tokens: int) -> list[int]:
    """The tokens of such a text."""
    words = " ".join(f"w{(number * 977 + i * 31) % 8000}" for i in range(num_tokens))
    return codec.encode(words, add_special_tokens=False)[:num_tokens]


def cluster_checks(cluster: dict[str, Any], peers: dict[str, Any], *, is_tiny: bool) -> list[dict[str, Any]]:
    """Throughput against the peer `vllm` where it is measured; for the tiny model also against what is known.

    Args:
        cluster: what `measure_cluster` returned.
        peers: what `measure_peer` returned, by name.
        is_tiny: whether the model is that of `write_tiny_model`; no other has targets of its own.
    """
    checks = [at_most("cluster_ready_s", cluster["ready_s"], "s", READY_S)]
    if "vllm" in peers or is_tiny:
        reference = peers["vllm"]["together"]["output_tokens_per_s"] if "vllm" in peers else VLLM_TOKENS_PER_S
        tokens_per_s = cluster["together"]["output_tokens_per_s"]
        checks.append(at_least("cluster_tokens_per_s", tokens_per_s, "tokens/s", THROUGHPUT_FACTOR * reference))
    if is_tiny:
        alone = cluster["alone"]
        checks.append(at_most("cluster_ttft_ms_c1", alone["ttft_ms_p50"], "ms", TTFT_MS))
        checks.append(at_most("cluster_tpot_ms_c1", alone["tpot_ms_p50"], "ms", TPOT_MS))
    return checks
