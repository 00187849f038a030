"""The router, measured with workers that compute nothing: its decisions, and its front ends."""

import os
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.bench.jobs import run_job
from deploy.bench.router.front_ends import PROMPT_TOKENS, FrontEnds
from deploy.bench.router.prompts import write_small_tokenizer
from deploy.bench.router.scenarios import Scenarios, measure_grpc, measure_http
from deploy.cluster import Say
from deploy.demo_model import demo_model_dir
from deploy.demo_record import is_current_demo

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
        say(f"decisions among up to {self.num_workers} workers and {self.num_blocks:,} blocks")
        job = {"num_workers": self.num_workers, "num_blocks": self.num_blocks, "seconds": self.seconds}
        result: dict[str, Any] = run_job("deploy.bench.router.decisions", job)
        return result

    def _ask(self, apis: list[str], say: Say) -> dict[str, Any]:
        if self.profile is not None:
            self.profile.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            model_dir = self.model_dir or _tokenizer_dir(Path(stack.enter_context(tempfile.TemporaryDirectory())))
            say(f"starting a router and {self.num_answering} workers; prompts of {PROMPT_TOKENS} tokens")
            front_ends = stack.enter_context(FrontEnds(model_dir, self.num_answering, say, self.profile))
            measured = {
                api: MEASURES[api](Scenarios(front_ends, api, self.seconds, self.step_ms / 1000)) for api in apis
            }
        return {"tokenizer": model_dir.name, **measured}


def _tokenizer_dir(folder: Path) -> Path:
    """The demo model, or a small tokenizer made in `folder`."""
    demo_dir = demo_model_dir()
    return demo_dir if is_current_demo(demo_dir) else write_small_tokenizer(folder / "small")
