"""The router, measured with workers that compute nothing: its decisions, and its front ends."""

import os
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.bench.checks import at_least, at_most
from deploy.bench.jobs import run_job
from deploy.bench.router.front_ends import PROMPT_TOKENS, FrontEnds
from deploy.bench.router.prompts import write_small_tokenizer
from deploy.bench.router.scenarios import Scenarios, measure_grpc, measure_http
from deploy.cluster import Say
from deploy.demo_model import demo_model_dir
from deploy.demo_record import is_current_demo

NUM_WORKERS = (2, 10, 100)  # of which 2 leave nothing to choose: what all else costs that a new request does
NUM_BLOCKS = (10_000, 1_000_000)
TARGET_BLOCKS = 1_000_000  # that the target of decisions is set for; what a block takes is judged from there on
MIN_PLACEMENTS_PER_S = 20_000.0
MAX_BLOCK_BYTES = 100.0
DECISIONS, HTTP, GRPC = PARTS = ("decisions", "http", "grpc")
MEASURES = {HTTP: measure_http, GRPC: measure_grpc}


@dataclass(frozen=True, slots=True)
class RouterBench:
    """What to measure.

    Attributes:
        parts: of `PARTS`.
        num_workers: most workers that decisions are made among, half of them for decoding.
        num_blocks: most blocks in the prefix index.
        num_answering: workers behind the front ends.
        step_ms: of paced workers.
        seconds: that count of each load, and of each series of decisions.
        model_dir: whose tokenizer the front ends use; None for the demo model's, or a small one where there is none.
        profile: folder for profiles of the router under each load; None for none.
    """

    parts: tuple[str, ...]
    num_workers: int
    num_blocks: int
    num_answering: int
    step_ms: float
    seconds: float
    model_dir: Path | None
    profile: Path | None

    def run(self, say: Say) -> dict[str, Any]:
        """Everything, one after the other; the list `checks` has one entry per target."""
        result: dict[str, Any] = {"cores": len(os.sched_getaffinity(0)), "checks": []}
        if DECISIONS in self.parts:
            result[DECISIONS] = self._decide(say)
        apis = [part for part in MEASURES if part in self.parts]
        if apis:
            result |= self._ask(apis, say)
        for part in self.parts:
            result["checks"] += result[part].pop("checks", [])
        return result

    def _decide(self, say: Say) -> dict[str, Any]:
        blocks = sorted({min(num_blocks, self.num_blocks) for num_blocks in (*NUM_BLOCKS, self.num_blocks)})
        series = []
        for num_workers in sorted({min(number, self.num_workers) for number in (*NUM_WORKERS, self.num_workers)}):
            own = blocks if num_workers == self.num_workers else [each for each in blocks if each <= TARGET_BLOCKS]
            say(f"decisions among {num_workers} workers, up to {own[-1]:,} blocks")
            job = {"num_workers": num_workers, "blocks": own, "seconds": self.seconds}
            series += run_job("deploy.bench.router.decisions", job)["series"]
        least_us = {row["blocks"]: row["us_per_decision"] for row in series if row["workers"] == min(NUM_WORKERS)}
        for row in series:  # the smallest fleet is not measured with the largest index
            row["us_choosing"] = row["us_per_decision"] - least_us.get(row["blocks"], max(least_us.values()))
        at_target = [row for row in series if row["workers"] == self.num_workers and row["blocks"] <= TARGET_BLOCKS]
        large = [row for row in series if row["blocks"] >= min(TARGET_BLOCKS, self.num_blocks)]
        block_bytes = max(row["bytes_per_block"] for row in large)
        return {
            "series": series,
            "checks": [
                at_least("placements_per_s", at_target[-1]["decisions_per_s"], "1/s", MIN_PLACEMENTS_PER_S),
                at_most("bytes_per_indexed_block", block_bytes, "B", MAX_BLOCK_BYTES),
            ],
        }

    def _ask(self, apis: list[str], say: Say) -> dict[str, Any]:
        if self.profile is not None:
            self.profile.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            model_dir = self.model_dir or tokenizer_dir(Path(stack.enter_context(tempfile.TemporaryDirectory())))
            say(f"starting a router and {self.num_answering} workers; prompts of {PROMPT_TOKENS} tokens")
            front_ends = stack.enter_context(FrontEnds(model_dir, self.num_answering, say, self.profile))
            measured = {
                api: MEASURES[api](Scenarios(front_ends, api, self.seconds, self.step_ms / 1000)) for api in apis
            }
        return {"tokenizer": model_dir.name, **measured}


def tokenizer_dir(folder: Path) -> Path:
    """The demo model, or a small tokenizer made in `folder`."""
    demo_dir = demo_model_dir()
    return demo_dir if is_current_demo(demo_dir) else write_small_tokenizer(folder / "small")
