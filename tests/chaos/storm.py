"""Many requests under random faults: `python -m tests.chaos.storm --requests 300 --seed 7` says what became of them.

Clients over gRPC ask for greedy answers, and some of them leave; clients over HTTP ask for everything that can be
asked for, and compare with an undisturbed run before. The seed decides requests and faults; when they meet is up to
the machine. With `--routers 2` these are killed as well, over a redis-server of the storm's own, and all clients come
over HTTP.
"""

import argparse
import json
import random
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import grpc

from core.request import Role
from deploy.bench.chaos.question import questions
from deploy.bench.chaos.storm import StormReport, ask_all, draws, undisturbed
from deploy.bench.chaos.wind import Force, Wind
from router.text.tokenizer import TextCodec
from tests.chaos.cluster import MODEL, NO_ANSWER, ChaosCluster, Slot
from tests.chaos.model import ChaosModel, prompt_of
from tests.chaos.request import Outcome
from tests.router.state.redis_server import RedisServer, find_redis_server

SLOTS = (
    Slot("prefill-0", Role.PREFILL, num_blocks=192),
    Slot("prefill-1", Role.PREFILL, num_blocks=192),
    Slot("decode-0", Role.DECODE, num_blocks=96),
    Slot("decode-1", Role.DECODE, num_blocks=96),
)
GRPC_SHARE = 0.5
GRPC_CLIENTS = 4  # with those over HTTP more than the decode workers have room for when prompts are long
HTTP_CLIENTS = 4
NUM_QUESTIONS = 32
PROMPT_TOKENS = (16, 100, 300, 500, 700)
ANSWER_TOKENS = (1, 8, 24, 60)
CANCELLED = 0.2  # of all requests over gRPC, by their clients
FORCE = Force(calm_s=(0.2, 1.2), stopped_s=(0.2, 2.0))
HANG_TIMEOUT_S = 4.0


@dataclass(frozen=True)
class Order:
    """One request over gRPC: what is asked, and after how many seconds its client leaves, if it does."""

    prompt: tuple[int, ...]
    num_tokens: int
    leaves_after_s: float | None


@dataclass
class Report:
    """What became of the requests.

    Attributes:
        requests: made over gRPC.
        answered: of those, with the right tokens.
        cancelled: by their client.
        lost: ended with an error that their client did not cause.
        wrong: ended with other tokens.
        hung: not ended by the deadline.
        http: what became of those over HTTP.
        faults: injected, by kind.
        restarts: of workers and routers.
        blocks_leaked: in use or in quarantine long after everything had ended.
        has_settled: whether all workers were there at the end, and had nothing left to do.
        errors: what the lost ones were told, and what did not settle.
    """

    requests: int = 0
    answered: int = 0
    cancelled: int = 0
    lost: int = 0
    wrong: int = 0
    hung: int = 0
    http: StormReport | None = None
    faults: dict[str, int] = field(default_factory=dict)
    restarts: int = 0
    blocks_leaked: int = 0
    has_settled: bool = False
    errors: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        over_http = self.http is not None and not (self.http.lost or self.http.wrong)
        return over_http and self.has_settled and not (self.lost or self.wrong or self.hung or self.blocks_leaked)

    def add(self, outcome: Outcome, expected: Sequence[int], *, was_cancelled: bool) -> None:
        """Counts how a request over gRPC ended."""
        self.requests += 1
        if outcome.is_hung:
            self.hung += 1
        elif outcome.code is grpc.StatusCode.OK:
            is_right = outcome.tokens == tuple(expected)
            self.answered += is_right
            self.wrong += not is_right
        elif outcome.code is grpc.StatusCode.CANCELLED and was_cancelled:
            self.cancelled += 1
        else:
            self.lost += 1
            self.errors.append(f"{outcome.code.name}: {outcome.details}")


def orders(choice: random.Random, number: int) -> Iterator[Order]:
    """Requests at random, of few kinds, so that few answers have to be known."""
    for _ in range(number):
        size = choice.choice(PROMPT_TOKENS)
        leaves_after_s = choice.uniform(0.0, 1.0) if choice.random() < CANCELLED else None
        yield Order(tuple(prompt_of(size, seed=size)), choice.choice(ANSWER_TOKENS), leaves_after_s)


class Storm:
    """Clients of both kinds at once, and one thread that injects faults while they last.

    Args:
        cluster: with the workers of `SLOTS`.
        model: theirs.
        seed: of everything that is chosen.
        grpc_share: of the requests that come over gRPC, whose clients do not survive a router.
    """

    def __init__(self, cluster: ChaosCluster, model: ChaosModel, seed: int, grpc_share: float) -> None:
        self._cluster = cluster
        self._seed = seed
        self._grpc_share = grpc_share
        longest = max(ANSWER_TOKENS)
        self._answers = {size: model.answer(prompt_of(size, seed=size), longest) for size in PROMPT_TOKENS}
        asked = questions(MODEL, TextCodec.load(model.folder), NUM_QUESTIONS)
        self._questions, self._undisturbed, self._expected = undisturbed(
            cluster.url, asked, HTTP_CLIENTS, lambda _ended: None
        )
        self._wind = Wind(cluster, FORCE, seed, lambda _fault: None)
        self._lock = threading.Lock()
        self._report = Report()

    def run(self, num_requests: int) -> Report:
        """Until every request has ended and every block is free, or should be."""
        assert not self._undisturbed.lost, self._undisturbed
        num_grpc = int(self._grpc_share * num_requests)
        with self._cluster.supervised(HANG_TIMEOUT_S):
            with self._wind.blowing(), ThreadPoolExecutor(GRPC_CLIENTS + 1) as clients:
                over_http = clients.submit(self._ask, num_requests - num_grpc)
                choice = random.Random(self._seed)  # noqa: S311 - not for secrets
                list(clients.map(self._serve, orders(choice, num_grpc)))
                self._report.http = over_http.result()
            self._settle()
        self._report.faults = dict(self._wind.faults)
        self._report.restarts = self._cluster.num_restarts
        return self._report

    def _ask(self, number: int) -> StormReport:
        drawn = draws(self._questions, self._seed, lambda num_drawn: num_drawn < number)
        ended = ask_all(self._cluster.url, drawn, HTTP_CLIENTS, lambda _ended: self._wind.progressed())
        return StormReport.of(ended, self._expected)

    def _settle(self) -> None:
        try:
            self._cluster.settle()
            self._report.has_settled = True
        except NO_ANSWER as error:
            self._report.errors.append(str(error) or repr(error))
        self._report.blocks_leaked = self._cluster.num_held_blocks()

    def _serve(self, order: Order) -> None:
        request = self._cluster.ask(order.prompt, order.num_tokens)
        if order.leaves_after_s is not None:
            request.wait(order.leaves_after_s)
            request.cancel()
        outcome = request.outcome()
        expected = self._answers[len(order.prompt)][: order.num_tokens]
        with self._lock:
            self._report.add(outcome, expected, was_cancelled=order.leaves_after_s is not None)
        self._wind.progressed()


def run_storm(folder: Path, model: ChaosModel, *, num_requests: int, seed: int) -> Report:
    """A storm over a cluster of one router, whose logs go to `folder`."""
    with ChaosCluster(folder, model.folder, model.block_bytes, SLOTS, ucx_tls="all") as cluster:
        return Storm(cluster, model, seed, GRPC_SHARE).run(num_requests)


def run_router_storm(
    folder: Path, model: ChaosModel, redis: RedisServer, *, num_requests: int, seed: int, num_routers: int
) -> Report:
    """The same over a cluster whose routers die, too."""
    with ChaosCluster(
        folder, model.folder, model.block_bytes, SLOTS, ucx_tls="all", num_routers=num_routers, state=redis.url
    ) as cluster:
        return Storm(cluster, model, seed, 0.0).run(num_requests)


def storm_of(options: argparse.Namespace, folder: Path, model: ChaosModel) -> Report:
    size = {"num_requests": options.requests, "seed": options.seed}
    if options.routers == 1:
        return run_storm(folder, model, **size)
    program = find_redis_server()
    assert program is not None, "no redis-server here; apt-get install redis-server"
    redis = RedisServer(program, folder)
    redis.start()
    try:
        return run_router_storm(folder, model, redis, num_routers=options.routers, **size)
    finally:
        redis.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--routers", type=int, default=1)
    parser.add_argument("--json", type=Path, help="also write the report to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="baton-storm-") as name:
        (folder := Path(name)).joinpath("model").mkdir()
        model = ChaosModel.write(folder / "model")
        report = storm_of(options, folder, model)
    text = json.dumps(asdict(report), indent=2)
    sys.stdout.write(text + "\n")
    if options.json is not None:
        options.json.write_text(text + "\n", encoding="utf-8")
    sys.exit(not report.is_clean)


if __name__ == "__main__":
    main()
