"""Answers of a cluster whose workers and routers die, beside those of the same cluster undisturbed."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from core.errors import InternalError
from deploy.bench.chaos.client import Asked
from deploy.bench.chaos.question import Question, questions
from deploy.bench.chaos.settling import Leftovers, leftovers
from deploy.bench.chaos.storm import StormReport, ask_all, draws, undisturbed
from deploy.bench.chaos.victims import ClusterVictims, statuses
from deploy.bench.chaos.wind import Force, Wind
from deploy.bench.checks import at_least, at_most, exactly
from deploy.cluster import ClusterAddresses, Say, run_cluster
from deploy.config import OWN_REDIS, ServeConfig
from router.text.tokenizer import TextCodec

NUM_QUESTIONS = 32  # each kind, length and way to ask; all are asked again and again
NUM_CLIENTS = 8
NUM_WORKERS = 2  # of each role: one may die while another goes on
NUM_ROUTERS = 2
MAX_MODEL_LEN = 2048
FORCE = Force(calm_s=(0.5, 4.0), stopped_s=(0.5, 4.0))
HANG_TIMEOUT_S = 5.0
# A worker that hangs is dead after about 7 s, and with the demo model its successor serves 10 s after that on two
# cores: an answer waits for both when no other worker of the role is left, before its first text as well as after.
LONGEST_PAUSE_S = 20.0
SAY_EVERY = 50  # requests


@dataclass(frozen=True, slots=True)
class ChaosBench:
    """What to measure.

    Attributes:
        num_requests: that have to be asked while faults come, or the run proves too little.
        duration_s: for so long faults come and requests are asked, one after the other by each client.
        seed: of what is asked when, and of the faults.
    """

    num_requests: int
    duration_s: float
    seed: int

    def run(self, model_dir: Path, say: Say) -> dict[str, Any]:
        """Starts a cluster, asks all questions undisturbed, then many times under faults; stops it.

        Raises:
            InternalError: a question failed without a fault, so that there is nothing to compare with.
        """
        config = chaos_config(model_dir)
        with run_cluster(config, model_dir, say) as cluster:
            to_ask = questions(config.model_name, TextCodec.load(model_dir), NUM_QUESTIONS)
            say(f"{len(to_ask)} questions, undisturbed")
            to_ask, before, expected = undisturbed(cluster.url, to_ask, NUM_CLIENTS, lambda _ended: None)
            if before.lost:
                raise InternalError(f"{before.lost} questions failed without a fault: {before.errors[0]}")
            say(f"requests under faults for {self.duration_s:g} s")
            wind, ended = self._storm(cluster, to_ask, say)
            say("waiting until nothing is left")
            left = leftovers(lambda: statuses(cluster.grpc_address), config.prefill + config.decode)
        return chaos_result(before, StormReport.of(ended, expected), dict(wind.faults), left, self.num_requests)

    def _storm(self, cluster: ClusterAddresses, to_ask: list[Question], say: Say) -> tuple[Wind, list[Asked]]:
        port = urlsplit(cluster.url).port
        assert port is not None, f"{cluster.url} names a port"
        wind = Wind(ClusterVictims(cluster.grpc_address, port), FORCE, self.seed, say)
        num_ended = 0

        def on_end(_ended: Asked) -> None:
            nonlocal num_ended
            num_ended += 1
            wind.progressed()
            if num_ended % SAY_EVERY == 0:
                say(f"{num_ended} requests have ended")

        deadline_s = time.monotonic() + self.duration_s
        with wind.blowing():
            drawn = draws(to_ask, self.seed, lambda _number: time.monotonic() < deadline_s)
            ended = ask_all(cluster.url, drawn, NUM_CLIENTS, on_end)
        return wind, ended


def chaos_config(model_dir: Path) -> ServeConfig:
    """Two workers of each role that keep their roles unless they are flipped, and two routers; in float32."""
    return ServeConfig(
        model=model_dir,
        served_model_name="bench",
        routers=NUM_ROUTERS,
        state=OWN_REDIS,
        prefill=NUM_WORKERS,
        decode=NUM_WORKERS,
        dtype="float32",
        kv_cache_gb=0.25,
        max_model_len=MAX_MODEL_LEN,
        max_num_seqs=NUM_CLIENTS,
        max_num_batched_tokens=128,
        hang_timeout_s=HANG_TIMEOUT_S,
        auto_roles=False,
        port=0,
        ask="",
    )


def chaos_result(
    before: StormReport, storm: StormReport, faults: dict[str, int], left: Leftovers, num_requests: int
) -> dict[str, Any]:
    """All figures, and the targets."""
    num_kills = sum(count for fault, count in faults.items() if fault.startswith("kill"))
    return {
        "undisturbed": asdict(before),
        "storm": asdict(storm),
        "faults": faults,
        "left": asdict(left),
        "checks": [
            at_least("requests", storm.requests, "requests", num_requests),
            at_least("kills", num_kills, "kills", 1),
            exactly("lost", storm.lost, "requests", 0),
            exactly("wrong", storm.wrong, "requests", 0),
            at_most("longest_pause_s", storm.longest_wait_s, "s", LONGEST_PAUSE_S),
            exactly("blocks_leaked", left.blocks, "blocks", 0),
            exactly("workers_missing", left.missing_workers, "workers", 0),
        ],
    }
