"""KV blocks over NIXL: one-sided transfers with UCX underneath (RDMA verbs, shared memory, TCP).

Two registered regions per rank, one prepared descriptor per run, so that a transfer is two lists of indices.
NIXL's own progress thread is off: it burns a core per agent while idle. `BlockMover` polls while writes are open.
See https://github.com/ai-dynamo/nixl (Python API, release 1.5).
"""

import logging
import struct
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from nixl import _api as nixl

from core.errors import HandoffError
from core.ids import WorkerId
from kvtransfer.memory import RankMemory
from kvtransfer.move import Direction
from kvtransfer.runs import Region, RunIds, RunTable
from kvtransfer.transport import TransferState

METADATA_HEADER = struct.Struct("!4sQQQQQI4s")  # as the fields of Addresses
MAGIC = b"BNX2"
SCRATCH_BYTES = 64  # a cache line that peers write once, to set up the connection before the first block needs it
WARM_UP_S = 2.0  # UCX needs 6-28 ms for the first write of a pair; past this the peer makes no progress
WARM_UP_POLL_S = 0.0005
LOCAL_SIDE = "NIXL_INIT_AGENT"  # how NIXL names the initiator's own descriptors

logger = logging.getLogger(__name__)


class Addresses(NamedTuple):
    """Where the regions lie in their owner's memory: what a peer needs to describe each of their runs."""

    magic: bytes
    pool_address: int
    pool_bytes: int
    staging_address: int
    staging_bytes: int
    scratch_address: int
    device: int
    memory_type: bytes


@dataclass(slots=True)
class NixlTransfer:
    """A posted transfer request; released once it has ended."""

    agent: Any
    handle: Any

    def poll(self) -> TransferState:
        """See `Transfer.poll`."""
        try:
            state = self.agent.check_xfer_state(self.handle)
        except Exception as error:  # NIXL raises a family of C++ errors, one per backend status
            self.release()
            raise HandoffError(f"the NIXL transfer failed: {error}; the request is placed again") from error
        if state == "PROC":
            return TransferState.IN_FLIGHT
        self.release()
        if state != "DONE":
            raise HandoffError(f"the NIXL transfer ended in state {state!r}; the request is placed again")
        return TransferState.DONE

    def release(self) -> None:
        """Gives the request back; NIXL tries to call off one that is under way."""
        try:
            self.agent.release_xfer_handle(self.handle)
        except Exception as error:  # noqa: BLE001 - a handle that NIXL keeps costs only its memory
            logger.warning("NIXL kept a transfer handle: %s", error)


class NixlTransport:
    """Implements `Transport` over one NIXL agent, named after worker and incarnation.

    Args:
        worker: this rank.
        memory: its regions; registered until `close`.
    """

    def __init__(self, worker: WorkerId, memory: RankMemory) -> None:
        self._agent = nixl.nixl_agent(str(worker), nixl.nixl_agent_config(enable_prog_thread=False, backends=["UCX"]))
        self._scratch = torch.zeros(SCRATCH_BYTES, dtype=torch.uint8, device=memory.pool.device)
        self._geometry = Addresses(
            magic=MAGIC,
            pool_address=memory.pool.data_ptr(),
            pool_bytes=memory.pool.nbytes,
            staging_address=memory.staging.data_ptr(),
            staging_bytes=memory.staging.nbytes,
            scratch_address=self._scratch.data_ptr(),
            device=max(memory.pool.get_device(), 0),
            memory_type=b"VRAM" if memory.pool.is_cuda else b"DRAM",
        )
        regions = (memory.pool, memory.staging, self._scratch)
        self._registrations = [self._agent.register_memory(tensor) for tensor in regions]
        self._peers: dict[WorkerId, tuple[Any, Any]] = {}

    def metadata(self) -> bytes:
        """Addresses, then the agent's own metadata."""
        return METADATA_HEADER.pack(*self._geometry) + bytes(self._agent.get_agent_metadata())

    def add_peer(self, peer: WorkerId, metadata: bytes, local: RunTable, remote: RunTable) -> str:
        """Loads the peer's agent, prepares a descriptor per run, and connects."""
        if peer in self._peers:
            return "ucx"
        theirs = self._unpack(peer, metadata)
        name = self._load_agent(peer, metadata[METADATA_HEADER.size :])
        if name != str(peer):
            raise HandoffError(f"the metadata of worker {peer} is that of {name}; the request is placed again")
        try:
            self._warm_up(name, theirs)
            self._peers[peer] = (
                self._prepare(LOCAL_SIDE, self._geometry, local),
                self._prepare(name, theirs, remote),
            )
        except Exception as error:
            self._forget_agent(name)
            if isinstance(error, HandoffError):
                raise
            raise HandoffError(f"NIXL could not connect to worker {peer}: {error}") from error
        return "ucx"

    def expect_peer(self, peer: WorkerId, metadata: bytes) -> None:
        """Nothing is needed of this end but progress."""

    def remove_peer(self, peer: WorkerId) -> None:
        """Releases the peer's descriptors and forgets its agent."""
        both = self._peers.pop(peer, None)
        if both is not None:
            for descriptors in both:
                self._agent.release_dlist_handle(descriptors)
            self._forget_agent(str(peer))

    def post(self, peer: WorkerId, direction: Direction, local: RunIds, remote: RunIds) -> NixlTransfer:
        """Posts one transfer request for all runs given."""
        if peer not in self._peers:
            raise HandoffError(f"worker {peer} is not connected; the request is placed again")
        mine, theirs = self._peers[peer]
        operation = direction.value.upper()
        try:
            return self._post(self._agent.make_prepped_xfer(operation, mine, local, theirs, remote))
        except Exception as error:
            raise HandoffError(f"NIXL could not {direction.value} to worker {peer}: {error}") from error

    def progress(self) -> None:
        """Collecting notifications makes UCX progress."""
        self._agent.get_new_notifs()

    def close(self) -> None:
        """Forgets all peers and deregisters the pool."""
        for peer in list(self._peers):
            self.remove_peer(peer)
        for registration in self._registrations:
            self._agent.deregister_memory(registration)

    def _prepare(self, agent_name: str, owner: Addresses, runs: RunTable) -> Any:  # noqa: ANN401 - an opaque handle
        """Prepares one descriptor per run: `[num_runs, (address, bytes, device)]`."""
        table = np.empty((runs.num_runs, 3), dtype=np.uint64)
        address = owner.pool_address if runs.region is Region.POOL else owner.staging_address
        table[:, 0] = np.uint64(address) + runs.starts()
        table[:, 1] = runs.run_bytes
        table[:, 2] = owner.device
        return self._agent.prep_xfer_dlist(agent_name, table, owner.memory_type.decode())

    def _warm_up(self, agent_name: str, theirs: Addresses) -> None:
        """Writes the peer's scratch line once, which makes UCX connect the pair."""
        sides = [
            self._agent.get_xfer_descs(
                [(pool.scratch_address, SCRATCH_BYTES, pool.device)], pool.memory_type.decode()
            )
            for pool in (self._geometry, theirs)
        ]
        write = self._post(self._agent.initialize_xfer("WRITE", *sides, agent_name))
        deadline_s = time.monotonic() + WARM_UP_S
        while write.poll() is TransferState.IN_FLIGHT:
            if time.monotonic() > deadline_s:
                write.release()
                raise HandoffError(f"NIXL agent {agent_name} did not answer within {WARM_UP_S:g} s; is it stopped?")
            time.sleep(WARM_UP_POLL_S)

    def _post(self, handle: Any) -> NixlTransfer:  # noqa: ANN401 - an opaque NIXL handle
        """Starts a transfer request; releases it when it cannot be started."""
        write = NixlTransfer(self._agent, handle)
        try:
            self._agent.transfer(handle)
        except BaseException:
            write.release()
            raise
        return write

    def _load_agent(self, peer: WorkerId, agent_metadata: bytes) -> str:
        try:
            return str(self._agent.add_remote_agent(agent_metadata), "utf-8")
        except Exception as error:
            raise HandoffError(f"NIXL could not connect to worker {peer}: {error}") from error

    def _forget_agent(self, name: str) -> None:
        try:
            self._agent.remove_remote_agent(name)
        except Exception as error:  # noqa: BLE001 - the peer is gone; what NIXL keeps of it costs only its memory
            logger.warning("NIXL kept agent %s: %s", name, error)

    def _unpack(self, peer: WorkerId, metadata: bytes) -> Addresses:
        if len(metadata) <= METADATA_HEADER.size:
            raise HandoffError(f"worker {peer} sent {len(metadata)} bytes of NIXL metadata, which is too short")
        theirs = Addresses(*METADATA_HEADER.unpack_from(metadata))
        if theirs.magic != MAGIC:
            raise HandoffError(
                f"worker {peer} speaks protocol {theirs.magic!r}, this one {MAGIC!r}; start one version on both"
            )
        return theirs
