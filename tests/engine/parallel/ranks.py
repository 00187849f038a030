"""Ranks above 0 as processes that are started once and serve one group after another; rank 0 is the test itself."""

import multiprocessing
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch.distributed import TCPStore  # type: ignore[attr-defined] # missing in its stubs

from core.errors import BatonError, ShardGroupError
from engine.engine import Engine
from engine.messages import RANK_MESSAGES
from engine.parallel.process_group import connect
from engine.parallel.topology import ShardTopology

HOST = "127.0.0.1"
FOLLOWED = "followed"
ANSWER_TIMEOUT_S = 60


def open_store() -> TCPStore:
    """A store on loopback; its address is `HOST` and `.port`."""
    listener = socket.create_server((HOST, 0))
    port = listener.getsockname()[1]
    return TCPStore(HOST, port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach())


class Follower:
    """One process; `follow` gives it a group to join, `answer` waits for how that ended."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()
        self._num_groups = 0

    def follow(self, rank: int, store_address: str, model_dir: Path, load: dict[str, Any]) -> None:
        self._num_groups += 1
        self._pipe.send((self._num_groups, rank, store_address, model_dir, load))

    def answer(self) -> str:
        """`FOLLOWED`, or the error that ended it, of the group joined last."""
        group, answer = 0, ""
        while group < self._num_groups:
            assert self._pipe.poll(ANSWER_TIMEOUT_S), "the follower still follows"
            group, answer = self._pipe.recv()
        return answer

    def end(self) -> None:
        self.process.kill()
        self.process.join()


def _serve(pipe: Connection) -> None:
    torch.set_num_threads(1)
    while True:
        group, rank, store_address, model_dir, load = pipe.recv()
        communicator = connect(
            rank, load["topology"].world_size, store_address, "cpu", host=HOST, kinds=RANK_MESSAGES
        )
        try:
            Engine.load(model_dir, communicator=communicator, **load).follow()
            answer = FOLLOWED
        except BatonError as error:
            answer = f"{type(error).__name__}: {error.message}"
        communicator.close()  # as the end of the process would
        pipe.send((group, answer))


class Ranks:
    """As many followers as were ever needed at once; `last` are those of the group that ended last."""

    def __init__(self) -> None:
        self.last: list[Follower] = []
        self._idle: list[Follower] = []

    @contextmanager
    def group(
        self,
        model_dir: Path,
        topology: ShardTopology,
        follower_load: dict[str, Any] | None = None,
        **load: Any,  # noqa: ANN401 - `Engine.load`'s
    ) -> Iterator[tuple[Engine, list[Follower]]]:
        """Rank 0's engine of a running group, and the others, which are loaded with `follower_load` instead."""
        load["topology"] = topology
        followers = [self._take() for _ in range(1, topology.world_size)]
        store = open_store()
        address = f"{HOST}:{store.port}"
        for rank, follower in enumerate(followers, start=1):
            follower.follow(rank, address, model_dir, {**load, **(follower_load or {})})
        communicator = connect(0, topology.world_size, address, "cpu", host=HOST, kinds=RANK_MESSAGES)
        try:
            engine = Engine.load(model_dir, communicator=communicator, **load)
            yield engine, followers
            with suppress(ShardGroupError):
                engine.close()
        finally:
            communicator.close()
            self.last = followers
            self._idle += [follower for follower in followers if follower.process.is_alive()]

    def end(self) -> None:
        for follower in self._idle:
            follower.end()

    def _take(self) -> Follower:
        return self._idle.pop() if self._idle else Follower()
