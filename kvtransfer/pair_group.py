"""Two processes joined by torch.distributed: bytes of host memory go by Gloo, bytes of GPU memory by NCCL.

The backends are made directly, without torch's process-wide default group. NCCL is chosen by where a tensor lies and
has not been run: there was no GPU.
"""

import contextlib
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined] # missing in its stubs

from core.errors import ConfigError, HandoffError, LostConnectionError
from core.ids import WorkerId
from kvtransfer.pair_store import JOIN_S, PairStore

FOREVER = timedelta(days=20)  # a peer may have nothing to say for long; torch counts milliseconds in 31 bits
CLOSE_TAG = 1
CLOSE_WAIT = timedelta(milliseconds=1)


class PairGroup:
    """This process and a peer; made by both at the same time. One thread sends and receives, any may close.

    Args:
        peer: the other end.
        rank: 0 or 1, the peer is the other.
        store: to the peer; closed by this object.
        gloo_device: what `make_gloo_device` gave.
        device: where payload lies.

    Raises:
        HandoffError: the peer did not join in time.
    """

    def __init__(self, peer: WorkerId, rank: int, store: PairStore, gloo_device: Any, device: torch.device) -> None:  # noqa: ANN401 - torch has no type for it
        self._peer = peer
        self._other = 1 - rank
        self._store = store  # NCCL connects with the first message
        try:
            self._gloo = _gloo(PrefixStore("gloo", store), rank, gloo_device)
            self._nccl = _nccl(PrefixStore("nccl", store), rank) if device.type == "cuda" else None
        except (RuntimeError, OSError) as error:
            store.close()
            raise HandoffError(f"worker {peer} did not join within {JOIN_S:g} s ({error}); is it stopped?") from error

    def send(self, tensor: Tensor) -> None:
        """Returns when the tensor, which is contiguous, may be changed.

        Raises:
            LostConnectionError: the connection broke, or the group was closed.
        """
        self._carry_out(tensor, lambda backend: backend.send([tensor], self._other, 0))

    def receive(self, tensor: Tensor) -> None:
        """Fills a contiguous tensor of as many bytes as the peer sends; waits for them as long as it takes.

        Raises:
            LostConnectionError: the connection broke, or the group was closed.
        """
        self._carry_out(tensor, lambda backend: backend.recv([tensor], self._other, 0))

    def close(self) -> None:
        """Ends the connection; a thread that waits for the peer, at either end, gets an error at once."""
        # torch has no way to interrupt Gloo, but a receive that times out makes it close the connection.
        with contextlib.suppress(RuntimeError):
            self._gloo.recv([torch.empty(1, dtype=torch.uint8)], self._other, CLOSE_TAG).wait(CLOSE_WAIT)
        if self._nccl is not None:
            self._nccl.abort()
        self._store.close()

    def _carry_out(self, tensor: Tensor, start: Callable[[Any], Any]) -> None:
        try:
            start(self._nccl if tensor.is_cuda else self._gloo).wait(FOREVER)
        except RuntimeError as error:
            raise LostConnectionError(
                f"the connection with worker {self._peer} broke ({error}); the request is placed again"
            ) from error


def make_gloo_device(host: str) -> Any:  # noqa: ANN401 - torch has no type for it
    """What connects this process's Gloo groups, bound to one address; has a thread, which sleeps while idle.

    Raises:
        ConfigError: the host is not one of this machine.
    """
    make: Any = dist.ProcessGroupGloo
    try:
        return make.create_device(hostname=host)
    except RuntimeError as error:
        raise ConfigError(f"host is {host!r}; Gloo cannot be bound there: {error}") from error


def _gloo(store: Store, rank: int, device: Any) -> Any:  # noqa: ANN401 - torch's stubs leave out single backends
    make: Any = dist.ProcessGroupGloo
    options = make._Options()  # noqa: SLF001 - torch's own way to choose the device
    options._timeout = timedelta(seconds=JOIN_S)  # noqa: SLF001 - likewise
    options._devices = [device]  # noqa: SLF001 - likewise
    options._threads = 1  # noqa: SLF001 - likewise; one transfer is under way at a time
    return make(store, rank, 2, options)


def _nccl(store: Store, rank: int) -> Any:  # noqa: ANN401 - torch's stubs leave out single backends
    options = dist.ProcessGroupNCCL.Options()
    options._timeout = FOREVER  # noqa: SLF001 - torch's own name for it; its watchdog would end the process
    return dist.ProcessGroupNCCL(store, rank, 2, options)
