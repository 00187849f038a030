"""A whole router on one core, and everything that asks and answers it on another: what a request and a token cost."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from baton.v1 import control_pb2

from core.errors import InternalError
from deploy.bench.cores import two_cores
from deploy.bench.remote import Remote
from deploy.bench.router.asking import Load, LoadFigures, Watched
from deploy.bench.router.client_host import ClientHost
from deploy.bench.router.pace import Pace
from deploy.bench.router.prompts import CONTEXT, exact_prompts, new_answer_tokens
from deploy.bench.router.router_host import RouterHost
from deploy.bench.router.run import Run
from deploy.bench.router.worker_host import WorkerHost
from deploy.cluster import Say
from deploy.status_client import get_status
from router.config import RouterConfig
from router.process import RouterAddresses
from router.text.tokenizer import TextCodec
from rpc.security import OPEN

MODEL = "synthetic"
NUM_PROMPTS = 4096
PROMPT_TOKENS = 128
READY_TIMEOUT_S = 30.0
POLL_S = 0.05
HOSTS = tuple(f"deploy.bench.router.{name}_host" for name in ("router", "worker", "client"))
PRELOADED = ("deploy.cli", *HOSTS)  # the former, because a new process imports the program that started it


class FrontEnds:
    """A router with its workers and clients, from construction until its context ends.

    Args:
        model_dir: whose tokenizer and chat template are used.
        num_workers: at least two, half of them for decoding.
        say: is told what is going on.
        profile: folder to write a profile of the router's event loop to, one file per run; None for none.
    """

    def __init__(self, model_dir: Path, num_workers: int, say: Say, profile: Path | None) -> None:
        self._say = say
        self._profile = profile
        codec = TextCodec.load(model_dir)
        answer = new_answer_tokens(codec)
        config = _router_config(model_dir, codec)
        self._router_core, other_core = two_cores()
        start = partial(Remote, environment={}, preloaded=PRELOADED)
        with ExitStack() as stack:
            self._router = stack.enter_context(start(partial(RouterHost, config), self._router_core))
            workers = partial(WorkerHost, num_workers, answer, config.max_model_len)
            self._workers = stack.enter_context(start(workers, other_core))
            prompts = exact_prompts(codec, NUM_PROMPTS, PROMPT_TOKENS)
            self._clients = stack.enter_context(start(partial(ClientHost, MODEL, prompts, answer.words), other_core))
            addresses: RouterAddresses = self._router.call("addresses")
            self._addresses = {
                "http": f"127.0.0.1:{addresses.http_port}", "grpc": f"127.0.0.1:{addresses.grpc_port}"
            }  # fmt: skip
            self._workers.call("register", f"127.0.0.1:{addresses.cluster_port}")
            self._wait_until(
                lambda: len(self._status().workers) == num_workers, "the router is not attached to all workers"
            )
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the processes."""
        self._stack.close()

    @property
    def url(self) -> str:
        """Of the HTTP API."""
        return f"http://{self._addresses['http']}"

    def set_pace(self, pace: Pace) -> None:
        """Changes the pace of all workers, once nothing is under way."""
        self._settle()
        self._workers.call("set_pace", pace)

    def run(self, name: str, load: Load, pace: Pace, api: str = "http") -> Run:
        """Sends a load while the workers have a pace.

        Raises:
            InternalError: a request failed, or an answer is wrong.
        """
        self._say(f"{name}: {load.num_clients} at once, {load.answer_tokens} tokens")
        self.set_pace(pace)
        self._workers.call("take_inside_s")
        watched = Watched({"router": self._router.pid, "workers": self._workers.pid}, self._router_core)
        with self._profiling(name):
            figures: LoadFigures = self._clients.call("send", api, self._addresses[api], load, watched)
        return Run(name, api, load, pace, figures, self._workers.call("take_inside_s"))

    @contextmanager
    def _profiling(self, name: str) -> Iterator[None]:
        if self._profile is None:
            yield
            return
        self._router.call("start_profile")
        yield
        self._router.call("end_profile", self._profile / f"{name}.pstats")

    def _settle(self) -> None:
        """Waits until nothing of the last load is under way, not even a report."""
        self._wait_until(self._is_settled, "the router and its workers still have something under way")

    def _is_settled(self) -> bool:
        status, idle_steps = self._status(), self._workers.call("idle_steps")
        heard = {worker.hello.endpoint.worker.name: worker.load.steps for worker in status.workers}
        return not status.active_requests and heard == idle_steps

    def _status(self) -> control_pb2.GetStatusResponse:
        return get_status(self._addresses["grpc"], OPEN)

    def _wait_until(self, is_so: Callable[[], bool], trouble: str) -> None:
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        while not is_so():
            if time.monotonic() > deadline_s:
                raise InternalError(f"{trouble} after {READY_TIMEOUT_S:g} s")
            time.sleep(POLL_S)


def _router_config(model_dir: Path, codec: TextCodec) -> RouterConfig:
    """As `baton serve` runs it, with metrics, on free ports; roles stay as they are."""
    return RouterConfig(
        model_dir=model_dir,
        served_model_name=MODEL,
        port=0,
        grpc_port=0,
        metrics_port=0,
        max_model_len=codec.context_length or CONTEXT,
        auto_roles=False,
        drain_timeout_s=0.0,
    )
