"""The same swinging load on three workers: against each fixed split, and with roles that follow the load."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from deploy.bench.cluster_load import prompt_text
from deploy.bench.load import REQUEST_TIMEOUT_S, greedy_body
from deploy.bench.roles.fleet_driver import FleetDriver, three_workers
from deploy.bench.roles.goodput import Slo, run_figures, swing_checks
from deploy.bench.roles.swing_plan import Arrival, arrivals, swing
from deploy.bench.stream_record import StreamRecord, record_http
from deploy.cluster import Say, run_cluster
from router import hello_wire
from router.text.tokenizer import TextCodec

FIXED_SPLITS = {"1 prefill + 2 decode": (1, 2), "2 prefill + 1 decode": (2, 1)}
AUTO = "automatic"
AUTO_STARTS_FROM = (1, 2)


@dataclass(frozen=True, slots=True)
class SwingBench:
    """What to measure.

    Attributes:
        segment_s: seconds of each of the three segments.
        slo: what counts as in time, and what roles are chosen for.
        seed: of the arrivals.
    """

    segment_s: float
    slo: Slo
    seed: int

    def run(self, model_dir: Path, say: Say) -> dict[str, Any]:
        """Starts a cluster, sends it the load once for each split and once with automatic roles, stops it."""
        # Without prefix cache, for every run sends the same prompts.
        config = replace(
            three_workers(model_dir), slo_ttft_ms=1000 * self.slo.ttft_s, slo_tpot_ms=1000 * self.slo.tpot_s
        )
        codec = TextCodec.load(model_dir)
        with run_cluster(config, model_dir, say) as cluster:
            fleet = FleetDriver(cluster.grpc_address)
            segments = swing(hello_wire.hello_from_proto(fleet.status().workers[0].hello).cost_model)
            plan = arrivals(segments, self.segment_s, self.seed)
            bodies = [_body(config.model_name, codec, number, each) for number, each in enumerate(plan)]
            runs = {}
            for name in (*FIXED_SPLITS, AUTO):
                fleet.set_auto(is_auto=False)
                fleet.rebalance(*FIXED_SPLITS.get(name, AUTO_STARTS_FROM))
                fleet.set_auto(is_auto=name == AUTO)
                say(f"{name}: {len(plan)} requests in {len(segments) * self.segment_s:g} s")
                began_at = time.time()
                records = asyncio.run(send_all(cluster.url, plan, bodies))
                runs[name] = run_figures(records, self.slo, len(segments) * self.segment_s)
                runs[name]["role_changes"] = fleet.num_changes_since(began_at)
        return {
            "slo_ms": {"ttft": 1000 * self.slo.ttft_s, "tpot": 1000 * self.slo.tpot_s},
            "segments": [asdict(segment) for segment in segments],
            "runs": runs,
            "checks": swing_checks(runs, AUTO),
        }


async def send_all(url: str, plan: Sequence[Arrival], bodies: Sequence[dict[str, Any]]) -> list[StreamRecord]:
    """Sends each request at its time, however many are under way, and waits for all to end."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=REQUEST_TIMEOUT_S, limits=limits, trust_env=False) as client:
        start_s = asyncio.get_running_loop().time()

        async def send(arrival: Arrival, body: dict[str, Any]) -> StreamRecord:
            await asyncio.sleep(start_s + arrival.at_s - asyncio.get_running_loop().time())
            return await record_http(client, body)

        return await asyncio.gather(*map(send, plan, bodies))


def _body(model: str, codec: TextCodec, number: int, arrival: Arrival) -> dict[str, Any]:
    return greedy_body(model, prompt_text(codec, number, arrival.prompt_tokens), arrival.answer_tokens)
