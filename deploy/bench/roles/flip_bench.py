"""Changes roles of loaded workers live, and in the naive ways on the same load: drain then flip, and restart."""

import asyncio
import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from baton.v1 import control_pb2, generate_pb2, generate_pb2_grpc

from core.errors import InternalError
from core.request import Role
from deploy.bench.cluster_load import prompt_ids
from deploy.bench.load import REQUEST_TIMEOUT_S
from deploy.bench.roles.fleet_driver import (
    FleetDriver,
    is_back,
    is_without_sequences,
    num_running,
    three_workers,
)
from deploy.bench.roles.flip_figures import MeasuredFlip, flip_checks, num_changed, way_figures
from deploy.bench.roles.flip_load import FlipLoad
from deploy.bench.roles.recomputed import Totals, prompt_totals, tokens_recomputed
from deploy.bench.stream_record import StreamRecord, record_grpc
from deploy.cluster import Say, run_cluster
from router.text.tokenizer import TextCodec
from rpc.channels import open_channel

DECODE = ("decode-1", "decode-0")  # flips take turns with them
FLIPPED = DECODE[0]  # in the naive ways
STREAM_PROMPT_TOKENS = 32
ANSWER_TOKENS = 2  # of the trickle's prompts; the second is the decode worker's
SETTLE_S = 2.0  # between two flips, for the streams to go on as usual


@dataclass(frozen=True, slots=True)
class FlipBench:
    """What to measure.

    Attributes:
        num_streams: that run all the time.
        stream_tokens: of each of their answers, so many that they outlast a flip.
        prompt_tokens: of each prompt of the trickle.
        prompt_every_s: seconds between two of those.
        num_rounds: flips in either direction; an even number leaves both decode workers flipped as often.
    """

    num_streams: int
    stream_tokens: int
    prompt_tokens: int
    prompt_every_s: float
    num_rounds: int

    def run(self, model_dir: Path, say: Say) -> dict[str, Any]:
        """Starts a cluster of one prefill and two decode workers, measures, stops it."""
        # Without prefix cache every prompt token is computed, so that those computed twice can be counted.
        config = three_workers(model_dir)
        with run_cluster(config, model_dir, say) as cluster:
            fleet = FleetDriver(cluster.grpc_address)
            run = _FlipRun(self, config.model_name, TextCodec.load(model_dir), fleet, say)
            live = run.live()
            drain = run.drain_then_flip()
            restart = run.restart()
        ways = {"live": live, "drain_then_flip": drain, "restart": restart}
        return {**ways, "checks": flip_checks(live, restart)}


@dataclass(frozen=True, slots=True)
class _FlipRun:
    plan: FlipBench
    model: str
    codec: TextCodec
    fleet: FleetDriver
    say: Say

    def live(self) -> dict[str, Any]:
        """Flips workers while they work, then has the same streams run undisturbed to compare their answers."""
        flips: list[MeasuredFlip] = []
        migrations_before = num_migrations(self.fleet.status())
        with self._loaded() as (load, before):
            for worker in itertools.islice(itertools.cycle(DECODE), self.plan.num_rounds):
                flips += [self._flip(worker, role) for role in (Role.PREFILL, Role.DECODE)]
        status = self.fleet.status()
        figures = self._figures(flips, load, before, prompt_totals(status))
        num_moved = num_migrations(status) - migrations_before
        if not num_moved:
            raise InternalError("no stream went on elsewhere; use more --streams or longer --output-tokens")
        self.say(f"{len(load.streams)} streams once more, undisturbed")
        reference = asyncio.run(self._undisturbed(sorted(load.streams)))
        answers_changed = num_changed(load.streams, reference)
        return {**figures, "migrations": num_moved, "answers_changed": answers_changed}

    def drain_then_flip(self) -> dict[str, Any]:
        """Sends nothing new until a decode worker's streams have ended, then flips it.

        Flattering: nothing new is sent to the other workers either, so that the streams get faster towards their end.
        """
        with self._loaded() as (load, before):
            self.say(f"{FLIPPED}: waiting for its streams to end")
            ordered_s = time.perf_counter()
            with load.paused():
                self.fleet.wait_until(
                    lambda status: is_without_sequences(status, FLIPPED), f"{FLIPPED} has no sequences"
                )
            flip = since(ordered_s, self._flip(FLIPPED, Role.PREFILL))
        figures = self._figures([flip], load, before, prompt_totals(self.fleet.status()))
        self.fleet.flip(FLIPPED, Role.DECODE)
        return figures

    def restart(self) -> dict[str, Any]:
        """Kills a decode worker; Ray starts it again, and it is told its other role as soon as it is back."""
        self.fleet.unpin(FLIPPED)  # or the router would tell it to be pinned again just then
        with self._loaded() as (load, before):
            last = prompt_totals(self.fleet.status())
            self.say(f"{FLIPPED}: killing it")
            ordered_s = time.perf_counter()
            dead = self.fleet.kill(FLIPPED)
            self.fleet.wait_until(lambda status: is_back(status, FLIPPED, dead), f"{FLIPPED} is back")
            flip = since(ordered_s, self._flip(FLIPPED, Role.PREFILL))
        return self._figures([flip], load, before, {**last, **prompt_totals(self.fleet.status())})

    @contextmanager
    def _loaded(self) -> Iterator[tuple[FlipLoad, Totals]]:
        """The load, with all streams running, and what the workers had computed before it."""
        before = prompt_totals(self.fleet.status())
        load = FlipLoad(
            self.fleet.grpc_address,
            self._stream_request,
            self._prompt_request,
            self.plan.num_streams,
            self.plan.prompt_every_s,
        )
        with load.running():
            self.say(f"starting {self.plan.num_streams} streams and a prompt every {self.plan.prompt_every_s:g} s")
            self.fleet.wait_until(
                lambda status: num_running(status) >= self.plan.num_streams, f"{self.plan.num_streams} streams run"
            )
            time.sleep(SETTLE_S)
            yield load, before
            self.say("letting all requests end")

    def _flip(self, worker: str, role: Role) -> MeasuredFlip:
        """Flips a worker and waits for the streams to go on as usual."""
        ordered_s = time.perf_counter()
        change = self.fleet.flip(worker, role)
        if not change.first_work_s:
            raise InternalError(f"{worker} has had no work as a {role} worker; use a smaller --prompt-every-ms")
        self.say(f"{worker} to {role}: first work after {1000 * change.first_work_s:.0f} ms")
        time.sleep(SETTLE_S)
        watched_s = time.perf_counter() - ordered_s
        return MeasuredFlip(worker, role, ordered_s, change.first_work_s, change.verified_s, watched_s)

    def _figures(
        self, flips: Sequence[MeasuredFlip], load: FlipLoad, before: Totals, after: Totals
    ) -> dict[str, Any]:
        streams, prompts = list(load.streams.values()), list(load.prompts.values())
        return way_figures(flips, streams, prompts, tokens_recomputed(before, after, load.records))

    async def _undisturbed(self, numbers: Sequence[int]) -> dict[int, StreamRecord]:
        """The streams of these numbers, as many at once as under the load, and nothing beside them."""
        free = asyncio.Semaphore(self.plan.num_streams)
        async with open_channel(self.fleet.grpc_address) as channel:
            stub = generate_pb2_grpc.GenerateServiceStub(channel)

            async def ask(number: int) -> StreamRecord:
                async with free:
                    return await record_grpc(stub, self._stream_request(number), REQUEST_TIMEOUT_S)

            return dict(zip(numbers, await asyncio.gather(*map(ask, numbers)), strict=True))

    def _stream_request(self, number: int) -> generate_pb2.GenerateRequest:
        return self._request(2 * number, STREAM_PROMPT_TOKENS, self.plan.stream_tokens)

    def _prompt_request(self, number: int) -> generate_pb2.GenerateRequest:
        return self._request(2 * number + 1, self.plan.prompt_tokens, ANSWER_TOKENS)

    def _request(self, number: int, num_prompt_tokens: int, num_tokens: int) -> generate_pb2.GenerateRequest:
        return generate_pb2.GenerateRequest(
            model=self.model,
            tokens=generate_pb2.TokenIds(ids=prompt_ids(self.codec, number, num_prompt_tokens)),
            max_tokens=num_tokens,
            sampling=generate_pb2.SamplingOptions(temperature=0),
            ignore_eos=True,
        )


def since(ordered_s: float, flip: MeasuredFlip) -> MeasuredFlip:
    """A flip whose order was what was done before it: its times count from there."""
    waited_s = flip.ordered_s - ordered_s
    return replace(
        flip,
        ordered_s=ordered_s,
        first_work_s=waited_s + flip.first_work_s,
        settled_s=waited_s + flip.settled_s,
        watched_s=waited_s + flip.watched_s,
    )


def num_migrations(status: control_pb2.GetStatusResponse) -> int:
    """Sequences that went on elsewhere, since the workers started."""
    return sum(worker.load.migrations_sent for worker in status.workers)
