"""The collectives over real sockets. The ranks are threads here: a group needs no process of its own."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TypeVar

import pytest
import torch

from core.errors import ShardGroupError, UnavailableError
from engine.parallel import process_group
from engine.parallel.communicator import SOLO, Communicator
from engine.parallel.process_group import FRAME_BYTES, ProcessGroupCommunicator, connect
from tests.engine.parallel.ranks import HOST, open_store

SIZE = 3
T = TypeVar("T")
Everywhere = Callable[[Callable[[Communicator], T]], list[T]]


@pytest.fixture(scope="module")
def group() -> Iterator[list[ProcessGroupCommunicator]]:
    store = open_store()
    with ThreadPoolExecutor(SIZE) as pool:
        yield list(pool.map(lambda rank: connect(rank, SIZE, f"{HOST}:{store.port}", "cpu", host=HOST), range(SIZE)))


@pytest.fixture
def everywhere(group: list[ProcessGroupCommunicator]) -> Iterator[Everywhere[object]]:
    """Calls a function on every rank at once."""
    with ThreadPoolExecutor(SIZE) as pool:
        yield lambda call: list(pool.map(call, group))


def pair() -> list[ProcessGroupCommunicator]:
    """A group of two that a test may break."""
    store = open_store()
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda rank: connect(rank, 2, f"{HOST}:{store.port}", "cpu", host=HOST), range(2)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int64])
def test_all_reduce_adds_up_in_place(everywhere: Everywhere[list[float]], dtype: torch.dtype) -> None:
    def add_up(communicator: Communicator) -> list[float]:
        tensor = torch.tensor([1, communicator.rank], dtype=dtype)
        communicator.all_reduce_(tensor)
        return tensor.tolist()

    assert everywhere(add_up) == [[3, 3]] * SIZE


def test_all_gather_lays_ranks_side_by_side(everywhere: Everywhere[list[list[int]]]) -> None:
    def gather(communicator: Communicator) -> list[list[int]]:
        own = torch.tensor([[10], [20]]) + communicator.rank
        return communicator.all_gather(own, -1).tolist()  # type: ignore[no-any-return] # torch's stub

    assert everywhere(gather) == [[[10, 11, 12], [20, 21, 22]]] * SIZE


def test_empty_tensors_are_exchanged_too(everywhere: Everywhere[list[torch.Size]]) -> None:
    def exchange(communicator: Communicator) -> list[torch.Size]:
        empty = torch.empty(0, 4)
        communicator.all_reduce_(empty)
        return [communicator.all_gather(empty, -1).shape, communicator.all_to_all(empty, [0] * SIZE)[0].shape]

    assert everywhere(exchange) == [[(0, 4 * SIZE), (0, 4)]] * SIZE


@pytest.mark.parametrize("knows_counts", [False, True])
def test_all_to_all_moves_rows_to_their_ranks(everywhere: Everywhere[object], knows_counts: bool) -> None:
    """Rank r sends r rows to each rank but itself; rank 0 sends nothing."""

    def exchange(communicator: Communicator) -> object:
        rank = communicator.rank
        counts = [0 if other == rank else rank for other in range(SIZE)]
        rows = [[rank, other] for other, count in enumerate(counts) for _ in range(count)]
        send = torch.tensor(rows, dtype=torch.int64).view(-1, 2)
        receive_counts = [0 if other == rank else other for other in range(SIZE)] if knows_counts else None
        received, counted = communicator.all_to_all(send, counts, receive_counts)
        return received.tolist(), counted

    assert everywhere(exchange) == [
        ([[1, 0], [2, 0], [2, 0]], [0, 1, 2]),
        ([[2, 1], [2, 1]], [0, 0, 2]),
        ([[1, 2]], [0, 1, 0]),
    ]


@pytest.mark.parametrize("size_bytes", [0, 100, *range(FRAME_BYTES - 60, FRAME_BYTES + 20), 5 * FRAME_BYTES])
def test_objects_of_any_size_arrive(everywhere: Everywhere[object], size_bytes: int) -> None:
    """Around the size of a frame, which they are sent in, every length is tried."""

    def exchange(communicator: Communicator) -> object:
        value = bytes([communicator.rank]) * size_bytes
        return communicator.broadcast_object(value), communicator.gather_object(value)

    values = [bytes([rank]) * size_bytes for rank in range(SIZE)]
    assert everywhere(exchange) == [(values[0], values), (values[0], None), (values[0], None)]


def test_a_rank_alone_needs_no_group() -> None:
    rows = torch.tensor([[1.0, 2.0]])
    SOLO.all_reduce_(rows)
    assert rows.tolist() == [[1.0, 2.0]]
    assert SOLO.all_gather(rows, -1) is rows
    assert SOLO.all_to_all(rows, [1]) == (rows, [1])
    assert SOLO.broadcast_object("a") == "a"
    assert SOLO.gather_object("a") == ["a"]


def test_incomplete_group_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_group, "CONNECT_TIMEOUT", timedelta(seconds=0.2))
    store = open_store()
    with pytest.raises(UnavailableError, match=r"rank 1 of 2 found no complete group at 127\.0\.0\.1"):
        connect(1, 2, f"{HOST}:{store.port}", "cpu", host=HOST)


def test_peer_that_hangs_raises_in_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_group, "TENSOR_TIMEOUT", timedelta(seconds=0.2))
    waiting, _hanging = pair()
    with pytest.raises(ShardGroupError, match="rank 0 of 2 lost its group"):
        waiting.all_reduce_(torch.ones(1))
    waiting, _hanging = pair()
    with pytest.raises(ShardGroupError, match="rank 0 of 2 lost its group"):
        waiting.gather_object(1, timeout_s=0.2)


def test_lost_peer_raises_in_every_collective() -> None:
    survivor, lost = pair()
    lost.close()
    for call in (
        lambda: survivor.all_reduce_(torch.ones(1)),
        lambda: survivor.all_gather(torch.ones(1), 0),
        lambda: survivor.all_to_all(torch.ones(2, 1), [1, 1]),
        lambda: survivor.gather_object(1),
    ):
        with pytest.raises(ShardGroupError, match="rank 0 of 2 lost its group"):
            call()
