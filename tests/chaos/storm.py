"""Many handoffs under random faults: `python -m tests.chaos.storm --handoffs 500 --seed 7` says what became of them.

The seed decides requests and faults; when they meet is up to the machine.
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
from tests.chaos.cluster import ChaosCluster, Slot
from tests.chaos.model import ChaosModel, prompt_of
from tests.chaos.request import REQUEST_TIMEOUT_S, Outcome

SLOTS = (
    Slot("prefill-0", Role.PREFILL, num_blocks=192),
    Slot("prefill-1", Role.PREFILL, num_blocks=192),
    Slot("decode-0", Role.DECODE, num_blocks=96),
    Slot("decode-1", Role.DECODE, num_blocks=96),
)
CLIENTS = 6  # more than the decode workers have room for when prompts are long
PROMPT_TOKENS = (16, 100, 300, 500, 700)
ANSWER_TOKENS = (1, 8, 24, 60)
CANCELLED = 0.2  # of all requests, by their clients
CALM_S = (0.2, 1.2)  # from one fault to the next
STOPPED_S = (0.2, 2.0)
HANG_TIMEOUT_S = 4.0


@dataclass(frozen=True)
class Order:
    """One request of the storm: what is asked, and after how many seconds its client leaves, if it does."""

    prompt: tuple[int, ...]
    num_tokens: int
    leaves_after_s: float | None


@dataclass
class Report:
    """What became of the requests.

    Attributes:
        handoffs: requests made.
        answered: with the right tokens.
        cancelled: by their client.
        lost: ended with an error that their client did not cause.
        wrong: ended with other tokens.
        hung: not ended by the deadline.
        faults: injected, by kind.
        restarts: of workers.
        blocks_leaked: in use or in quarantine long after everything had ended.
        has_settled: whether all workers were there at the end, and had nothing left to do.
        errors: what the lost ones were told, and what did not settle.
    """

    handoffs: int = 0
    answered: int = 0
    cancelled: int = 0
    lost: int = 0
    wrong: int = 0
    hung: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    restarts: int = 0
    blocks_leaked: int = 0
    has_settled: bool = False
    errors: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        return self.has_settled and not (self.lost or self.wrong or self.hung or self.blocks_leaked)

    def add_fault(self, kind: str) -> None:
        """Counts a fault."""
        self.faults[kind] = self.faults.get(kind, 0) + 1

    def add(self, outcome: Outcome, expected: Sequence[int], *, was_cancelled: bool) -> None:
        """Counts how a request ended."""
        self.handoffs += 1
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
    """Clients on threads of their own, and one thread that injects faults while they last.

    Args:
        cluster: with the workers of `SLOTS`.
        model: theirs.
        seed: of everything that is chosen.
    """

    def __init__(self, cluster: ChaosCluster, model: ChaosModel, seed: int) -> None:
        self._cluster = cluster
        self._choice = random.Random(seed)  # noqa: S311 - not for secrets
        longest = max(ANSWER_TOKENS)
        self._answers = {size: model.answer(prompt_of(size, seed=size), longest) for size in PROMPT_TOKENS}
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._progress = threading.Event()
        self._report = Report()

    def run(self, num_handoffs: int) -> Report:
        """Until every request has ended and every block is free, or should be."""
        wind = threading.Thread(target=self._blow, args=(random.Random(self._choice.random()),))  # noqa: S311
        with self._cluster.supervised(HANG_TIMEOUT_S):
            wind.start()
            try:
                with ThreadPoolExecutor(CLIENTS) as clients:
                    list(clients.map(self._serve, orders(self._choice, num_handoffs)))
            finally:
                self._over.set()
                wind.join()
            self._settle()
        self._report.restarts = self._cluster.num_restarts
        return self._report

    def _settle(self) -> None:
        try:
            self._cluster.settle()
            self._report.has_settled = True
        except AssertionError as error:
            self._report.errors.append(str(error))
        self._report.blocks_leaked = self._cluster.num_held_blocks()

    def _serve(self, order: Order) -> None:
        request = self._cluster.ask(order.prompt, order.num_tokens)
        if order.leaves_after_s is not None:
            self._over.wait(order.leaves_after_s)
            request.cancel()
        outcome = request.outcome()
        expected = self._answers[len(order.prompt)][: order.num_tokens]
        with self._lock:
            self._report.add(outcome, expected, was_cancelled=order.leaves_after_s is not None)
        self._progress.set()

    def _blow(self, choice: random.Random) -> None:
        """One fault after another: a worker is killed, stopped for a while, or hangs until it is killed for that.

        None comes before a request has ended since the last: faults outrun no machine, and what waits for ever after
        the last of them does so among healthy workers.
        """
        names = [slot.name for slot in SLOTS]
        while not self._over.wait(choice.uniform(*CALM_S)):
            self._progress.wait(REQUEST_TIMEOUT_S)
            if self._over.is_set():
                return
            self._progress.clear()
            name, kind = choice.choice(names), choice.choice(("kill", "kill", "stop", "stop", "hang"))
            if kind == "hang" and name not in self._cluster.statuses():
                kind = "kill"  # who hangs while it starts is unknown to the router, and nobody would end it
            self._report.add_fault(f"{kind} {name.partition('-')[0]}")
            if kind == "kill":
                self._cluster.kill(name)
            elif kind == "hang":
                self._cluster.hang(name)
            else:
                with self._cluster.stopped(name):
                    self._over.wait(choice.uniform(*STOPPED_S))


def run_storm(folder: Path, model: ChaosModel, *, num_handoffs: int, seed: int) -> Report:
    """A storm over a cluster of its own, whose logs go to `folder`."""
    with ChaosCluster(folder, model.folder, model.block_bytes, SLOTS, ucx_tls="all") as cluster:
        return Storm(cluster, model, seed).run(num_handoffs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--handoffs", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the report to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="baton-storm-") as name:
        (folder := Path(name)).joinpath("model").mkdir()
        model = ChaosModel.write(folder / "model")
        report = run_storm(folder, model, num_handoffs=options.handoffs, seed=options.seed)
    text = json.dumps(asdict(report), indent=2)
    sys.stdout.write(text + "\n")
    if options.json is not None:
        options.json.write_text(text + "\n", encoding="utf-8")
    sys.exit(not report.is_clean)


if __name__ == "__main__":
    main()
