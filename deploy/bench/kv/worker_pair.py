"""A prefill and a decode worker in processes of their own, a core each, and handoffs from one to the other."""

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import psutil

from core.errors import InternalError
from core.request import Assignment, Role
from core.sampling import SamplingParams
from deploy.bench.cores import two_cores
from deploy.bench.kv.hosted_worker import HostedWorker, SenderTotals
from deploy.bench.kv.worker_stream import WorkerStream
from deploy.bench.remote import Remote
from engine.config import ModelConfig
from engine.sizing import kv_layout, serving_dtype
from worker.config import WorkerConfig

BLOCK_TOKENS = 16
POOL_PROMPTS = 3  # of the longest: one under way, one just ended, and room for steps that measure costs
ANSWER_TOKENS = 2  # the first from the prefill worker, the second from the decode worker
COUNT_TIMEOUT_S = 10.0
COUNT_POLL_S = 0.002
GIB = 1024**3


@dataclass(frozen=True, slots=True)
class PairPlan:
    """What the two workers are.

    Attributes:
        model_dir: checkpoint folder.
        prompt_tokens: of the longest prompt, at most; the model's context may allow less.
    """

    model_dir: Path
    prompt_tokens: int

    @property
    def longest_prompt(self) -> int:
        """Tokens of the longest prompt the model can be given."""
        return min(self.prompt_tokens, self._model.max_position_embeddings - ANSWER_TOKENS)

    @property
    def vocab_size(self) -> int:
        """Token ids are below it."""
        return self._model.vocab_size

    def config(self, role: Role, core: int, settings: Mapping[str, Any]) -> WorkerConfig:
        """Of one worker; `settings` are further ones, by the names of `WorkerConfig`."""
        layout = kv_layout(self._model, BLOCK_TOKENS, serving_dtype("auto", self._model))
        max_model_len = self.longest_prompt + ANSWER_TOKENS
        pool_bytes = POOL_PROMPTS * layout.blocks_for(max_model_len) * layout.block_bytes
        return WorkerConfig(
            name=f"{role}-0",
            role=role,
            model_dir=self.model_dir,
            block_size=BLOCK_TOKENS,
            kv_cache_gb=pool_bytes / GIB,
            enable_prefix_caching=False,  # every prompt is computed whole
            max_model_len=max_model_len,
            cpu_ids=(core,),
            **settings,
        )

    @property
    def _model(self) -> ModelConfig:
        return ModelConfig.from_dir(self.model_dir)


@dataclass(frozen=True, slots=True)
class Handoff:
    """One request on its way through both workers.

    Attributes:
        ttft_s: from the assignment to its first token.
        second_token_s: from the assignment to its second token, the first of the decode worker.
        sent: what the prefill worker's totals have grown by.
    """

    ttft_s: float
    second_token_s: float
    sent: SenderTotals


class WorkerPair:
    """Serves from construction until `close`. Requests are made one at a time.

    Args:
        plan: what the workers are.
        environment: variables of both processes.
        settings: of both workers, over those of the plan.

    Attributes:
        longest_prompt: tokens that a prompt may have.
    """

    def __init__(self, plan: PairPlan, environment: Mapping[str, str], settings: Mapping[str, Any]) -> None:
        self.longest_prompt = plan.longest_prompt
        self._vocab_size = plan.vocab_size
        self._num_requests = 0
        with ExitStack() as stack:
            roles = zip((Role.PREFILL, Role.DECODE), two_cores(), strict=True)
            configs = [(core, plan.config(role, core, settings)) for role, core in roles]
            self._hosts = [
                stack.enter_context(Remote(partial(HostedWorker, config), core, environment))
                for core, config in configs
            ]
            for host in self._hosts:
                host.start("endpoint")  # both load at the same time
            self._prefill, self._decode = streams = [WorkerStream(host.result()) for host in self._hosts]
            for stream in streams:
                stack.callback(stream.close)
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def warm_up(self) -> None:
        """Has the workers connect."""
        self.hand_over(1)

    def prefill_s(self, num_tokens: int) -> float:
        """Seconds to the first token of a request that ends with it: the same engine, and nobody to hand KV to."""
        work = self._request(num_tokens, max_new_tokens=1)
        started_s = time.perf_counter()
        self._prefill.assign(work)
        return self._prefill.wait_token(work.handoff_id, 0) - started_s

    def hand_over(self, num_tokens: int) -> Handoff:
        """Has a prompt computed by one worker and its answer by the other."""
        before = self._totals()
        work = self._request(num_tokens, max_new_tokens=ANSWER_TOKENS)
        started_s = time.perf_counter()
        self._decode.assign(work)
        self._prefill.assign(work)
        ttft_s = self._prefill.wait_token(work.handoff_id, 0) - started_s
        second_token_s = self._decode.wait_token(work.handoff_id, 1) - started_s
        return Handoff(ttft_s, second_token_s, self._counted(before.num_handoffs + 1).since(before))

    def cpu_s(self) -> list[float]:
        """Seconds of CPU that each worker has used."""
        times = [psutil.Process(host.pid).cpu_times() for host in self._hosts]
        return [time.user + time.system for time in times]

    def _request(self, num_tokens: int, max_new_tokens: int) -> Assignment:
        """A prompt of random tokens, unlike any other."""
        self._num_requests += 1
        tokens = np.random.default_rng(self._num_requests).integers(0, self._vocab_size, num_tokens)
        return Assignment(
            handoff_id=f"bench-{self._num_requests}.0",
            prompt=tuple(tokens.tolist()),
            first_position=0,
            max_new_tokens=max_new_tokens,
            sampling=SamplingParams(temperature=0.0),
            stop_token_ids=frozenset(),
            prefill=self._prefill.endpoint,
            decode=self._decode.endpoint,
        )

    def _totals(self) -> SenderTotals:
        totals: SenderTotals = self._hosts[0].call("totals")
        return totals

    def _counted(self, num_handoffs: int) -> SenderTotals:
        """The totals once a handoff is in them: its acknowledgement may come after the second token."""
        deadline_s = time.monotonic() + COUNT_TIMEOUT_S
        while (totals := self._totals()).num_handoffs < num_handoffs:
            if time.monotonic() > deadline_s:
                raise InternalError(f"a handoff was not acknowledged within {COUNT_TIMEOUT_S:g} s")
            time.sleep(COUNT_POLL_S)
        return totals
