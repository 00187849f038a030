"""KV over torch.distributed: Gloo for pools in host memory, NCCL for pools in GPU memory (not run: there was no GPU).

Needs nothing that torch does not bring, so it works where NIXL does not. Two-sided underneath: whoever starts
transfers calls the peer, which serves them on a thread. Each direction of a pair has its own group of two, so two
workers may start transfers with each other at once.
"""

import atexit
import json
import logging
import threading
from dataclasses import asdict, dataclass, field

import torch

from core.errors import HandoffError
from core.ids import WorkerId
from kvtransfer.memory import RankMemory
from kvtransfer.move import Direction
from kvtransfer.pair_calls import CallListener, call
from kvtransfer.pair_group import PairGroup, make_gloo_device
from kvtransfer.pair_sender import PairSender, PairTransfer
from kvtransfer.pair_service import PairService
from kvtransfer.pair_store import PairStore
from kvtransfer.run_bytes import check_route, check_table
from kvtransfer.run_stream import RunStream
from kvtransfer.runs import Region, RunIds, RunTable

PROTOCOL = "baton-collective-2"
PATHS = {"cpu": "gloo", "cuda": "nccl"}
CALLER, CALLEE = 0, 1  # ranks in a group

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CollectiveMetadata:
    """What a peer must know of a rank.

    Attributes:
        worker: the rank, as a string.
        address: where it is called.
        device: torch's type of its memory.
        region_bytes: bytes of each `Region`, in order.
        secret: what the listener at `address` wants to be shown. Not in the repr.
        protocol: what it speaks.
    """

    worker: str
    address: str
    device: str
    region_bytes: list[int]
    secret: str = field(repr=False)
    protocol: str = PROTOCOL

    def __post_init__(self) -> None:
        kinds = [type(value) for value in (self.address, self.secret, *self.region_bytes)]
        if kinds != [str, str, *(int for _ in Region)]:
            raise TypeError(f"the address is {self.address!r}, regions have {self.region_bytes} bytes")

    @classmethod
    def parse(cls, peer: WorkerId, metadata: bytes) -> "CollectiveMetadata":
        """Reads a peer's.

        Raises:
            HandoffError: it is another's, of another version, or nonsense.
        """
        try:
            theirs = cls(**json.loads(metadata))
        except (ValueError, TypeError, RecursionError) as error:
            raise HandoffError(
                f"worker {peer} sent {metadata[:80]!r} as metadata of the collective transport ({error}); "
                "run the same version on both"
            ) from error
        if (theirs.worker, theirs.protocol) != (str(peer), PROTOCOL):
            raise HandoffError(
                f"the metadata of worker {peer} is that of {theirs.worker} under protocol {theirs.protocol!r}, not "
                f"{PROTOCOL!r}; run the same version on both"
            )
        return theirs


class CollectiveTransport:
    """Implements `Transport` by point-to-point messages of torch.distributed.

    Args:
        worker: this rank.
        memory: its regions.
        host: address of this machine that peers reach; nothing listens at any other.

    Raises:
        ConfigError: the host is not one of this machine.
    """

    def __init__(self, worker: WorkerId, memory: RankMemory, host: str) -> None:
        self._worker = worker
        self._memory = memory
        self._device = memory.pool.device
        self._gloo_device = make_gloo_device(host)
        self._senders: dict[WorkerId, PairSender] = {}
        self._lock = threading.Lock()  # of the two below, which the listener's thread uses too
        self._expected: dict[str, WorkerId] = {}
        self._services: dict[WorkerId, PairService] = {}
        self._listener = CallListener(host, self._answer)
        atexit.register(self.close)  # a thread inside Gloo while its library is unloaded aborts the process

    def metadata(self) -> bytes:
        """A `CollectiveMetadata`, as JSON."""
        region_bytes = [self._memory.region(region).numel() for region in Region]
        listener = self._listener
        mine = CollectiveMetadata(
            str(self._worker), listener.address, self._device.type, region_bytes, listener.secret
        )
        return json.dumps(asdict(mine)).encode()

    def add_peer(self, peer: WorkerId, metadata: bytes, local: RunTable, remote: RunTable) -> str:
        """Forms a group with the peer, which expects it."""
        theirs = self._parse(peer, metadata)
        check_route(local, remote)
        check_table(local, self._memory.region(local.region).numel())
        check_table(remote, theirs.region_bytes[remote.region.value])
        self._close_sender(peer)
        group = self._join(peer, CALLER, call(self._worker, peer, theirs.address, theirs.secret))
        self._senders[peer] = PairSender(peer, RunStream(group, self._memory), local, remote)
        return PATHS[self._device.type]

    def expect_peer(self, peer: WorkerId, metadata: bytes) -> None:
        """From now on the peer's calls are answered, until `remove_peer`; each ends its connection before.

        Raises:
            HandoffError: its metadata is not what it should be.
        """
        self._parse(peer, metadata)
        with self._lock:
            self._expected[str(peer)] = peer

    def remove_peer(self, peer: WorkerId) -> None:
        """Ends the connections in both directions; after that nothing of them lands in this rank's memory."""
        self._close_sender(peer)
        with self._lock:
            self._expected.pop(str(peer), None)
            service = self._services.pop(peer, None)
        if service is not None:
            service.close()

    def post(self, peer: WorkerId, direction: Direction, local: RunIds, remote: RunIds) -> PairTransfer:
        """Hands the transfer to the peer's thread."""
        sender = self._senders.get(peer)
        if sender is None:
            raise HandoffError(f"worker {peer} is not connected; the request is placed again")
        return sender.post(direction, local, remote)

    def progress(self) -> None:
        """Threads do it."""

    def close(self) -> None:
        """Ends all connections and threads."""
        atexit.unregister(self.close)
        self._listener.close()
        for peer in [*self._senders, *self._services]:
            self.remove_peer(peer)

    def _answer(self, caller: str, store: PairStore) -> None:
        """Somebody calls. Who is not expected is turned away."""
        with self._lock:
            peer = self._expected.get(caller)
            if peer is None:
                logger.warning("worker %s calls, but its handshake is not known here", caller)
                store.close()
                return
            before = self._services.get(peer)
            if before is not None:
                before.close()
            self._services[peer] = PairService(peer, self._memory, lambda: self._join(peer, CALLEE, store))

    def _join(self, peer: WorkerId, rank: int, store: PairStore) -> PairGroup:
        if self._device.type == "cuda":
            torch.cuda.set_device(self._device)  # of this thread
        return PairGroup(peer, rank, store, self._gloo_device, self._device)

    def _close_sender(self, peer: WorkerId) -> None:
        sender = self._senders.pop(peer, None)
        if sender is not None:
            sender.close()

    def _parse(self, peer: WorkerId, metadata: bytes) -> CollectiveMetadata:
        theirs = CollectiveMetadata.parse(peer, metadata)
        if theirs.device != self._device.type:
            raise HandoffError(
                f"worker {peer} has its KV on {theirs.device!r}, this one on {self._device.type!r}; the collective "
                "transport needs the same on both: start both with the same --device"
            )
        return theirs
