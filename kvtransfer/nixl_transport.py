"""KV blocks over NIXL: one-sided writes with UCX underneath (RDMA verbs, shared memory, TCP).

One registered region per worker, one prepared descriptor per block, so that a write is two lists of indices.
NIXL's own progress thread is off: it burns a core per agent while idle. `BlockMover` polls while writes are open.
See https://github.com/ai-dynamo/nixl (Python API, release 1.5).
"""

import logging
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from nixl import _api as nixl

from core.errors import HandoffError
from core.ids import WorkerId
from engine.kv.pool import BlockPool
from kvtransfer.transport import WriteState

METADATA_HEADER = struct.Struct("!4sQQQQI4s")  # as the fields of PoolGeometry
MAGIC = b"BNX1"
SCRATCH_BYTES = 64  # a cache line that peers write once, to set up the connection before the first block needs it
WARM_UP_S = 2.0  # UCX needs 6-28 ms for the first write of a pair; past this the peer makes no progress
WARM_UP_POLL_S = 0.0005
LOCAL_SIDE = "NIXL_INIT_AGENT"  # how NIXL names the initiator's own descriptors

logger = logging.getLogger(__name__)


class PoolGeometry(NamedTuple):
    """Where a pool lies in its owner's memory: what a peer needs to describe each of its blocks."""

    magic: bytes
    address: int
    block_bytes: int
    num_blocks: int
    scratch_address: int
    device: int
    memory_type: bytes


@dataclass(slots=True)
class NixlWrite:
    """A posted transfer request; released once it has ended."""

    agent: Any
    handle: Any

    def poll(self) -> WriteState:
        """See `BlockWrite.poll`."""
        try:
            state = self.agent.check_xfer_state(self.handle)
        except Exception as error:  # NIXL raises a family of C++ errors, one per backend status
            self.release()
            raise HandoffError(f"the NIXL write failed: {error}; the request is placed again") from error
        if state == "PROC":
            return WriteState.IN_FLIGHT
        self.release()
        if state != "DONE":
            raise HandoffError(f"the NIXL write ended in state {state!r}; the request is placed again")
        return WriteState.DONE

    def release(self) -> None:
        """Gives the request back; NIXL tries to call off one that is under way."""
        try:
            self.agent.release_xfer_handle(self.handle)
        except Exception as error:  # noqa: BLE001 - a handle that NIXL keeps costs only its memory
            logger.warning("NIXL kept a transfer handle: %s", error)


class NixlTransport:
    """Implements `Transport` over one NIXL agent, named after worker and incarnation.

    Args:
        worker: this worker.
        pool: its blocks; registered as one region until `close`.
    """

    def __init__(self, worker: WorkerId, pool: BlockPool) -> None:
        self._agent = nixl.nixl_agent(str(worker), nixl.nixl_agent_config(enable_prog_thread=False, backends=["UCX"]))
        self._scratch = torch.zeros(SCRATCH_BYTES, dtype=torch.uint8, device=pool.tensor.device)
        self._geometry = PoolGeometry(
            magic=MAGIC,
            address=pool.tensor.data_ptr(),
            block_bytes=pool.layout.block_bytes,
            num_blocks=len(pool.tensor),
            scratch_address=self._scratch.data_ptr(),
            device=max(pool.tensor.get_device(), 0),
            memory_type=b"VRAM" if pool.tensor.is_cuda else b"DRAM",
        )
        self._registrations = [self._agent.register_memory(tensor) for tensor in (pool.tensor, self._scratch)]
        self._local = self._prepare(LOCAL_SIDE, self._geometry)
        self._peers: dict[WorkerId, Any] = {}

    def metadata(self) -> bytes:
        """Pool geometry, then the agent's own metadata."""
        return METADATA_HEADER.pack(*self._geometry) + bytes(self._agent.get_agent_metadata())

    def add_peer(self, peer: WorkerId, metadata: bytes) -> None:
        """Loads the peer's agent, prepares a descriptor per block of its pool, and connects."""
        if peer in self._peers:
            return
        theirs = self._unpack(peer, metadata)
        name = self._load_agent(peer, metadata[METADATA_HEADER.size :])
        if name != str(peer):
            raise HandoffError(f"the metadata of worker {peer} is that of {name}; the request is placed again")
        try:
            self._warm_up(name, theirs)
            self._peers[peer] = self._prepare(name, theirs)
        except Exception as error:
            self._forget_agent(name)
            if isinstance(error, HandoffError):
                raise
            raise HandoffError(f"NIXL could not connect to worker {peer}: {error}") from error

    def remove_peer(self, peer: WorkerId) -> None:
        """Releases the peer's descriptors and forgets its agent."""
        descriptors = self._peers.pop(peer, None)
        if descriptors is not None:
            self._agent.release_dlist_handle(descriptors)
            self._forget_agent(str(peer))

    def post_write(self, peer: WorkerId, local_ids: Sequence[int], remote_ids: Sequence[int]) -> NixlWrite:
        """Posts one transfer request for all blocks given."""
        if peer not in self._peers:
            raise HandoffError(f"worker {peer} is not connected; the request is placed again")
        sides = (
            self._local,
            np.asarray(local_ids, dtype=np.int32),
            self._peers[peer],
            np.asarray(remote_ids, dtype=np.int32),
        )
        try:
            return self._post(self._agent.make_prepped_xfer("WRITE", *sides))
        except Exception as error:
            raise HandoffError(f"NIXL could not write to worker {peer}: {error}") from error

    def progress(self) -> None:
        """Collecting notifications makes UCX progress."""
        self._agent.get_new_notifs()

    def close(self) -> None:
        """Forgets all peers and deregisters the pool."""
        for peer in list(self._peers):
            self.remove_peer(peer)
        self._agent.release_dlist_handle(self._local)
        for registration in self._registrations:
            self._agent.deregister_memory(registration)

    def _prepare(self, agent_name: str, pool: PoolGeometry) -> Any:  # noqa: ANN401 - an opaque NIXL handle
        """Prepares one descriptor per block of a pool: `[num_blocks, (address, bytes, device)]`."""
        table = np.empty((pool.num_blocks, 3), dtype=np.uint64)
        table[:, 0] = pool.address + np.arange(pool.num_blocks, dtype=np.uint64) * np.uint64(pool.block_bytes)
        table[:, 1] = pool.block_bytes
        table[:, 2] = pool.device
        return self._agent.prep_xfer_dlist(agent_name, table, pool.memory_type.decode())

    def _warm_up(self, agent_name: str, theirs: PoolGeometry) -> None:
        """Writes the peer's scratch line once, which makes UCX connect the pair."""
        sides = [
            self._agent.get_xfer_descs(
                [(pool.scratch_address, SCRATCH_BYTES, pool.device)], pool.memory_type.decode()
            )
            for pool in (self._geometry, theirs)
        ]
        write = self._post(self._agent.initialize_xfer("WRITE", *sides, agent_name))
        deadline_s = time.monotonic() + WARM_UP_S
        while write.poll() is WriteState.IN_FLIGHT:
            if time.monotonic() > deadline_s:
                write.release()
                raise HandoffError(f"NIXL agent {agent_name} did not answer within {WARM_UP_S:g} s; is it stopped?")
            time.sleep(WARM_UP_POLL_S)

    def _post(self, handle: Any) -> NixlWrite:  # noqa: ANN401 - an opaque NIXL handle
        """Starts a transfer request; releases it when it cannot be started."""
        write = NixlWrite(self._agent, handle)
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

    def _unpack(self, peer: WorkerId, metadata: bytes) -> PoolGeometry:
        if len(metadata) <= METADATA_HEADER.size:
            raise HandoffError(f"worker {peer} sent {len(metadata)} bytes of NIXL metadata, which is too short")
        theirs = PoolGeometry(*METADATA_HEADER.unpack_from(metadata))
        if (theirs.magic, theirs.block_bytes) != (MAGIC, self._geometry.block_bytes):
            raise HandoffError(
                f"worker {peer} has blocks of {theirs.block_bytes} bytes under protocol {theirs.magic!r}, this one "
                f"{self._geometry.block_bytes} under {MAGIC!r}; start both with the same version and settings"
            )
        return theirs
