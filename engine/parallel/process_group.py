"""A group of processes over torch.distributed: Gloo for CPU tensors and for all objects, NCCL for CUDA tensors.

Backends are made directly, without torch's process-wide default group, so each has its own device and deadlines.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined] # missing in its stubs

from core.errors import ShardGroupError, UnavailableError
from engine.parallel.communicator import STEP_TIMEOUT_S
from engine.parallel.plain_pickle import PlainPickle

# A dead peer is noticed at once, by its closed connection. These bound the wait for one that hangs.
CONNECT_TIMEOUT = timedelta(seconds=60)  # ranks are started together; importing torch takes seconds
TENSOR_TIMEOUT = timedelta(seconds=STEP_TIMEOUT_S)
BROADCAST_TIMEOUT = timedelta(days=30)  # rank 0 may have nothing to do for long
# An object that fits, with its length, goes in one message: the plan of some dozen sequences does.
FRAME_BYTES = 16_384
LENGTH_BYTES = 8
TAIL_TAG = 1

Backend = Any  # torch's stubs leave out the collectives of single backends


def connect(
    rank: int, size: int, store_address: str, device: str, *, host: str, kinds: Iterable[type] = ()
) -> "ProcessGroupCommunicator":
    """Joins a group; returns when all ranks have.

    Args:
        rank: this process's number, from 0.
        size: number of ranks.
        store_address: `host:port` of a `torch.distributed.TCPStore`, which lives until all ranks have joined.
        device: torch device of the tensors that the group will exchange.
        host: address at which the other ranks reach this process.
        kinds: classes whose instances the others may send, beside Python's own values.

    Raises:
        UnavailableError: the store or a rank did not answer within a minute.
    """
    store_host, port = store_address.rsplit(":", 1)
    try:
        store = TCPStore(store_host, int(port), is_master=False, timeout=CONNECT_TIMEOUT)
        objects = _gloo(PrefixStore("gloo", store), rank, size, host)
        is_cpu = torch.device(device).type == "cpu"
        tensors = objects if is_cpu else _nccl(PrefixStore("nccl", store), rank, size)
    except RuntimeError as error:
        raise UnavailableError(
            f"rank {rank} of {size} found no complete group at {store_address} within "
            f"{CONNECT_TIMEOUT.total_seconds():.0f} s ({error}); start all ranks again"
        ) from error
    return ProcessGroupCommunicator(rank, size, objects, tensors, PlainPickle(kinds))


def _gloo(store: Store, rank: int, size: int, host: str) -> Backend:
    make: Any = dist.ProcessGroupGloo
    options = make._Options()  # noqa: SLF001 - torch's own way to choose the device
    options._timeout = CONNECT_TIMEOUT  # noqa: SLF001 - likewise
    options._devices = [make.create_device(hostname=host)]  # noqa: SLF001 - likewise
    options._threads = 1  # noqa: SLF001 - likewise; one collective is under way at a time
    backend = make(store, rank, size, options)
    backend.set_timeout(TENSOR_TIMEOUT)
    return backend


def _nccl(store: Store, rank: int, size: int) -> Backend:
    """NCCL's own watchdog ends the process when a peer is lost or hangs: nobody waits for a kernel to return."""
    options = dist.ProcessGroupNCCL.Options()
    options._timeout = TENSOR_TIMEOUT  # noqa: SLF001 - torch's own name for it
    return dist.ProcessGroupNCCL(store, rank, size, options)


class ProcessGroupCommunicator:
    """A `Communicator` over connected backends; `connect` makes it.

    Args:
        rank: this process's number.
        size: number of ranks.
        objects: a Gloo backend, for objects and counts.
        tensors: the backend of the model's device; may be the same.
        pickle: reads what the others send.
    """

    def __init__(self, rank: int, size: int, objects: Backend, tensors: Backend, pickle: PlainPickle) -> None:
        self.rank = rank
        self.size = size
        self._objects = objects
        self._tensors = tensors
        self._pickle = pickle
        self._broadcast_options = dist.BroadcastOptions()
        self._broadcast_options.rootRank = 0
        self._broadcast_options.timeout = BROADCAST_TIMEOUT

    def all_reduce_(self, tensor: Tensor) -> None:
        """See `Communicator`."""
        if tensor.numel():
            self._wait(lambda: self._tensors.allreduce([tensor]))

    def all_gather(self, tensor: Tensor, dim: int) -> Tensor:
        """See `Communicator`."""
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        if tensor.numel():
            self._wait(lambda: self._tensors.allgather([parts], [tensor]))
        return torch.cat(parts, dim)

    def all_to_all(
        self, send: Tensor, send_counts: Sequence[int], receive_counts: Sequence[int] | None = None
    ) -> tuple[Tensor, list[int]]:
        """See `Communicator`."""
        if receive_counts is None:
            receive_counts = self._exchange_counts(send_counts)
        received = send.new_empty(sum(receive_counts), *send.shape[1:])
        self._wait(lambda: self._tensors.alltoall_base(received, send, list(receive_counts), list(send_counts)))
        return received, list(receive_counts)

    def broadcast_object(self, value: Any = None) -> Any:  # noqa: ANN401 - see `Communicator`
        """See `Communicator`."""
        frame, tail = _frame(self._pickle.dumps(value)) if self.rank == 0 else (_bytes(FRAME_BYTES), None)
        self._wait(lambda: self._objects.broadcast([frame], self._broadcast_options))
        if (rest := _tail_bytes(frame)) > 0:
            tail = _bytes(rest) if tail is None else tail
            self._wait(lambda: self._objects.broadcast([tail], self._broadcast_options))
        return value if self.rank == 0 else self._pickle.loads(_content(frame, tail))

    def gather_object(self, value: Any, timeout_s: float = STEP_TIMEOUT_S) -> list[Any] | None:  # noqa: ANN401 - see `Communicator`
        """See `Communicator`."""
        options = dist.GatherOptions()
        options.rootRank = 0
        options.timeout = timedelta(seconds=timeout_s)
        frame, tail = _frame(self._pickle.dumps(value if self.rank else None))
        frames = [_bytes(FRAME_BYTES) for _ in range(self.size)] if self.rank == 0 else []
        self._wait(lambda: self._objects.gather([frames] if frames else [], [frame], options))
        if self.rank == 0:
            return [value, *(self._receive_object(rank, frames[rank]) for rank in range(1, self.size))]
        if tail is not None:
            self._wait(lambda: self._objects.send([tail], 0, TAIL_TAG))
        return None

    def close(self) -> None:
        """See `Communicator`."""
        self._objects = self._tensors = None

    def _receive_object(self, rank: int, frame: Tensor) -> Any:  # noqa: ANN401 - anything that can be pickled
        tail = None
        if (rest := _tail_bytes(frame)) > 0:
            tail = _bytes(rest)
            self._wait(lambda: self._objects.recv([tail], rank, TAIL_TAG))
        return self._pickle.loads(_content(frame, tail))

    def _exchange_counts(self, send_counts: Sequence[int]) -> list[int]:
        counts = torch.tensor(send_counts, dtype=torch.int64)
        received = torch.empty_like(counts)
        self._wait(lambda: self._objects.alltoall_base(received, counts, [], []))
        return received.tolist()

    def _wait(self, start: Callable[[], Any]) -> None:
        """Starts an operation and waits for it. torch says a lost peer by RuntimeError, now or while waiting."""
        try:
            start().wait()
        except RuntimeError as error:
            raise ShardGroupError(f"rank {self.rank} of {self.size} lost its group: {error}") from error


def _frame(pickled: bytes) -> tuple[Tensor, Tensor | None]:
    """The first message of an object, and the second if it needs one.

        frame  [ length: u64 | pickled bytes, or their beginning )     tail  [ the rest )

    The frame is always `FRAME_BYTES` long, because a receiver does not know better.
    """
    content = torch.frombuffer(bytearray(len(pickled).to_bytes(LENGTH_BYTES, "little") + pickled), dtype=torch.uint8)
    if len(content) >= FRAME_BYTES:
        return content[:FRAME_BYTES], content[FRAME_BYTES:] if len(content) > FRAME_BYTES else None
    frame = _bytes(FRAME_BYTES)
    frame[: len(content)] = content
    return frame, None


def _tail_bytes(frame: Tensor) -> int:
    """Bytes that follow a frame; zero or less if none do."""
    return LENGTH_BYTES + _length(frame) - FRAME_BYTES


def _content(frame: Tensor, tail: Tensor | None) -> bytes:
    """The pickled bytes in both messages."""
    content = frame if tail is None else torch.cat([frame, tail])
    return content[LENGTH_BYTES : LENGTH_BYTES + _length(frame)].numpy().tobytes()


def _length(frame: Tensor) -> int:
    return int.from_bytes(frame[:LENGTH_BYTES].numpy().tobytes(), "little")


def _bytes(count: int) -> Tensor:
    return torch.zeros(count, dtype=torch.uint8)
