"""All clients of a measurement, in one process."""

import asyncio
import gc
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import uvloop

from core.errors import InternalError
from deploy.bench.remote import IsCalled
from deploy.bench.router.asking import Answer, Api, Connection, Load, LoadFigures, Watched, check_words
from deploy.bench.router.cpu_clock import core_idle_s, process_cpu_s
from deploy.bench.router.grpc_api import GrpcApi
from deploy.bench.router.http_api import HttpApi

MAX_END_S = 60.0  # for answers that are under way when the window ends
APIS: dict[str, type[HttpApi | GrpcApi]] = {"http": HttpApi, "grpc": GrpcApi}


class ClientHost:
    """Sends loads, one after the other.

    Args:
        model: its name.
        prompts: user messages, asked one after the other, and again from the first.
        words: of which every answer consists, again and again; one token each.
    """

    def __init__(self, model: str, prompts: Sequence[str], words: Sequence[str], _is_called: IsCalled) -> None:
        self._model = model
        self._prompts = prompts
        self._words = words

    def send(self, api: str, address: str, load: Load, watched: Watched) -> LoadFigures:
        """Sends a load to a router at `host:port` over `http` or `grpc`, and reads the answers.

        Raises:
            InternalError: a request failed, or an answer has a wrong token.
        """
        gc.collect()
        gc.disable()  # the clients' pauses are not what is measured
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                return runner.run(self._send(APIS[api](address, self._model), load, watched))
        finally:
            gc.enable()

    def close(self) -> None:
        """Nothing is open between two loads."""

    async def _send(self, api: Api, load: Load, watched: Watched) -> LoadFigures:
        watched = Watched({"clients": os.getpid(), **watched.pids}, watched.core)
        run = LoadRun(api, load, [api.request(prompt, load) for prompt in self._prompts], watched)
        try:
            await run.run()
        finally:
            await api.close()
        expected = list(islice(cycle(self._words), load.answer_tokens))
        return run.figures(expected)


@dataclass(frozen=True, slots=True)
class Mark:
    """Either end of a window.

    Attributes:
        at_s: when.
        num_parts: that had come, of each answer there was.
        cpu_s: used by each process so far, by name.
        idle_s: that the router's core has had nothing to do so far.
    """

    at_s: float
    num_parts: list[int]
    cpu_s: dict[str, float]
    idle_s: float


class LoadRun:
    """One load from its first request to its last.

    Args:
        api: how it is sent.
        load: what is sent.
        requests: asked one after the other, and again from the first.
        watched: whose CPU time is taken.
    """

    def __init__(self, api: Api, load: Load, requests: Sequence[Any], watched: Watched) -> None:
        self._api = api
        self._load = load
        self._requests = cycle(requests)
        self._watched = watched
        self._answers: list[Answer] = []
        self._marks: list[Mark] = []
        self._is_over = False

    async def run(self) -> None:
        """Sends it.

        Raises:
            InternalError: a request failed, or its answer does not end.
        """
        load = self._load
        connections = [await self._api.connect() for _ in range(load.num_clients)]
        clients = [asyncio.create_task(self._ask_on(connection)) for connection in connections]
        await _pass(clients, load.ramp_s)
        self._marks.append(self._mark())
        await _pass(clients, load.window_s)
        self._marks.append(self._mark())
        self._is_over = True
        if num_left := await _pass(clients, MAX_END_S):
            raise InternalError(
                f"{num_left} answers have not ended {MAX_END_S:g} s after the last request: tokens are lost"
            )
        for connection in connections:
            await connection.close()

    def figures(self, expected: Sequence[str]) -> LoadFigures:
        """What came of it, once it has run.

        Raises:
            InternalError: an answer has other words than the expected ones.
        """
        for answer in self._answers:
            check_words(self._api.words(answer.parts), expected)
        before, after = self._marks
        return LoadFigures(
            window_s=after.at_s - before.at_s,
            num_answers=sum(before.at_s <= answer.ended_s < after.at_s for answer in self._answers),
            num_tokens=self._num_tokens(after) - self._num_tokens(before),
            ttft_s=[answer.first_s - answer.sent_s for answer in self._answers if not answer.is_fresh],
            fresh_ttft_s=[answer.first_s - answer.sent_s for answer in self._answers if answer.is_fresh],
            duration_s=[answer.ended_s - answer.sent_s for answer in self._answers],
            cpu_s={name: after.cpu_s[name] - before.cpu_s[name] for name in after.cpu_s},
            idle_s=after.idle_s - before.idle_s,
        )

    def _mark(self) -> Mark:
        cpu_s = {name: process_cpu_s(pid) for name, pid in self._watched.pids.items()}
        num_parts = [len(answer.parts) for answer in self._answers]
        return Mark(time.perf_counter(), num_parts, cpu_s, core_idle_s(self._watched.core))

    def _num_tokens(self, mark: Mark) -> int:
        """That had come by then."""
        parts = zip(self._answers, mark.num_parts, strict=False)  # later answers have none
        return sum(len(self._api.words(answer.parts[:num_parts])) for answer, num_parts in parts)

    async def _ask_on(self, connection: Connection) -> None:
        """One client."""
        is_fresh = False
        while not self._is_over:
            used = await self._api.connect() if is_fresh else connection
            answer = Answer(0.0, is_fresh=is_fresh)
            self._answers.append(answer)
            try:
                await used.ask(next(self._requests), answer)
            finally:
                if is_fresh:
                    await used.close()
            is_fresh = self._load.has_fresh and not is_fresh


async def _pass(clients: Sequence["asyncio.Task[None]"], seconds: float) -> int:
    """Lets time pass; ends sooner when all clients have, or with the error of one. Returns how many have not."""
    done, left = await asyncio.wait(clients, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    for client in done:
        client.result()
    return len(left)
