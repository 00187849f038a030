"""The whole path of a request on one machine: start-up, one client, many clients, handoffs, transformers beside."""

import asyncio
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deploy.bench.checks import at_most
from deploy.bench.load import LoadResult, greedy_body, run_clients
from deploy.bench.transformers_baseline import run_baseline
from deploy.cluster import Say, run_cluster
from deploy.config import ServeConfig
from deploy.status_client import get_status
from engine.config import ModelConfig
from engine.sizing import serving_dtype
from router.text.tokenizer import TextCodec

FIRST_TOKEN_TARGET_S = 30.0  # from a warm start to the first token of the first answer
FILLER = "Tell me about the sea and the wind. "  # repeated until the prompt is long enough


@dataclass(frozen=True, slots=True)
class ServeBench:
    """What to measure.

    Attributes:
        num_clients: clients at once in the second run; the first has one.
        num_requests: of each client.
        prompt_tokens: of each request, about; the chat template and whole words decide.
        output_tokens: of each answer, exactly.
    """

    num_clients: int
    num_requests: int
    prompt_tokens: int
    output_tokens: int

    def run(self, config: ServeConfig, model_dir: Path, say: Say, *, with_transformers: bool) -> dict[str, Any]:
        """Starts a cluster, measures, stops it, then measures transformers. All figures are of this one run."""
        codec = TextCodec.load(model_dir)
        started_s = time.perf_counter()
        with run_cluster(config, model_dir, say) as cluster:
            ready_s = time.perf_counter() - started_s
            first = asyncio.run(run_clients(cluster.url, [[self._body(config, codec, 0)]]))
            first_token_s = ready_s + first.ttft_ms_p50 / 1000
            loads = [self._load(config, codec, cluster.url, number, say) for number in (1, self.num_clients)]
            handoffs = handoff_figures(cluster.grpc_address)
        say(f"cluster stopped; it was ready after {ready_s:.1f} s")
        result: dict[str, Any] = {
            "ready_s": ready_s,
            "first_token_s": first_token_s,
            "clients": [asdict(load) for load in loads],
            "handoff": handoffs,
            "checks": [at_most("first_token_after_start_s", first_token_s, "s", FIRST_TOKEN_TARGET_S)],
        }
        if with_transformers:
            say("measuring transformers on the same prompts")
            prompts = [codec.encode_chat(self._body(config, codec, n)["messages"]) for n in range(self.num_clients)]
            dtype = serving_dtype(config.dtype, ModelConfig.from_dir(model_dir))
            shortest = min(map(len, prompts))  # one length, so that no padding is computed
            batch = [prompt[:shortest] for prompt in prompts]
            result["transformers"] = run_baseline(
                model_dir, dtype, [(prompts, self.output_tokens) for prompts in (batch[:1], batch)]
            )
        return result

    def _load(self, config: ServeConfig, codec: TextCodec, url: str, num_clients: int, say: Say) -> LoadResult:
        say(f"{num_clients} client(s), {self.num_requests} request(s) each")
        bodies = [
            [self._body(config, codec, client * self.num_requests + number) for number in range(self.num_requests)]
            for client in range(num_clients)
        ]
        return asyncio.run(run_clients(url, bodies))

    def _body(self, config: ServeConfig, codec: TextCodec, number: int) -> dict[str, Any]:
        """A request unlike all others from its first word, so that no cache can help."""
        filler_tokens = len(codec.encode(FILLER, add_special_tokens=False))
        text = f"Question {number}. " + FILLER * max(1, round(self.prompt_tokens / filler_tokens))
        return greedy_body(config.model_name, text, self.output_tokens)


def handoff_figures(grpc_address: str) -> dict[str, float]:
    """Bytes and milliseconds per handoff, over all prefill workers since their start."""
    loads = [worker.load for worker in get_status(grpc_address).workers]
    count = max(1, sum(load.handoffs_sent for load in loads))
    return {
        "count": float(count),
        "bytes_per_request": sum(load.handoff_bytes for load in loads) / count,
        "write_ms_per_request": 1000 * sum(load.handoff_write_s for load in loads) / count,
        "exposed_ms_per_request": 1000 * sum(load.handoff_exposed_s for load in loads) / count,
    }
