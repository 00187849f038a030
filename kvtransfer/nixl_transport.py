"""KV over NIXL: one-sided writes and reads with UCX underneath (RDMA verbs, shared memory, TCP), or another backend.

One registered region per piece of memory, one prepared descriptor per run and peer, so that a transfer is two lists
of indices; NIXL itself makes one descriptor of runs that adjoin at both ends. NIXL's own progress thread is off: it
burns a core per agent while idle. See https://github.com/ai-dynamo/nixl (Python API, release 1.5).

What a dead peer has sent over TCP may still lie in this process's socket: `remove_peer` takes it in, so that it
cannot land in a block that somebody else has been given meanwhile.
"""

import logging
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import nixl
import numpy as np
import torch
import xxhash
from nixl import _api as nixl_api

from core.errors import ConfigError, HandoffError, LostConnectionError
from core.ids import WorkerId
from kvtransfer.memory import RankMemory
from kvtransfer.move import Direction
from kvtransfer.run_bytes import check_route, check_runs, check_table
from kvtransfer.runs import Region, RunIds, RunTable
from kvtransfer.transport import TransferState
from kvtransfer.ucx import UcxEnd, path_between

ENDPOINT = struct.Struct("!QQQQQI4s16sQQ??")  # as the fields of Endpoint
MAGIC = b"BNX2"  # begins metadata; then a digest of the rest, because NIXL keeps what it has read of one cut short
DIGEST_BYTES = 8
SCRATCH_BYTES = 64  # a cache line that peers write once, to set up the connection before the first block needs it
WARM_UP_S = 2.0  # UCX needs 6-28 ms for the first write of a pair; past this the peer makes no progress
WARM_UP_POLL_S = 0.0005
LOCAL_SIDE = "NIXL_INIT_AGENT"  # how NIXL names the initiator's own descriptors

logger = logging.getLogger(__name__)


class Endpoint(NamedTuple):
    """Where a rank's regions lie in its memory, and what decides how they are reached."""

    pool_address: int
    pool_bytes: int
    staging_address: int
    staging_bytes: int
    scratch_address: int
    device: int
    memory_type: bytes
    host: bytes
    pid: int
    probe_address: int
    allows_cma: bool
    allows_rdma: bool

    def extent(self, region: Region) -> tuple[int, int]:
        """Address and bytes of a region."""
        if region is Region.POOL:
            return self.pool_address, self.pool_bytes
        return self.staging_address, self.staging_bytes

    def ucx_end(self) -> UcxEnd:
        """What UCX goes by."""
        return UcxEnd(self.host, self.pid, self.probe_address, self.allows_cma, self.allows_rdma)


@dataclass(frozen=True, slots=True)
class NixlPeer:
    """A peer that this rank starts transfers with: its metadata, and descriptors of the runs at both ends."""

    metadata: bytes
    path: str
    local_table: RunTable
    remote_table: RunTable
    local: Any
    remote: Any


@dataclass(slots=True)
class NixlTransfer:
    """A posted transfer request; released once it has ended."""

    agent: Any
    handle: Any
    peer: WorkerId
    broken: set[WorkerId]  # of the transport: peers to be connected anew

    def poll(self) -> TransferState:
        """See `Transfer.poll`."""
        try:
            state = self.agent.check_xfer_state(self.handle)
        except Exception as error:  # NIXL raises a family of C++ errors, one per backend status
            self.release()
            raise _lost(self.peer, f"the NIXL transfer with worker {self.peer} failed", error, self.broken) from error
        if state == "PROC":
            return TransferState.IN_FLIGHT
        self.release()
        if state != "DONE":
            raise HandoffError(
                f"the NIXL transfer with worker {self.peer} ended in state {state!r}; the request is placed again"
            )
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
        backends: NIXL's plugins to use.

    Raises:
        ConfigError: NIXL or a backend does not start, or the memory cannot be registered.
    """

    def __init__(self, worker: WorkerId, memory: RankMemory, backends: Sequence[str] = ("UCX",)) -> None:
        self._agent = _make_agent(worker, backends)
        self._backends = tuple(backends)
        self._memory = memory  # peers know its addresses: it must not be freed before
        self._scratch = torch.zeros(SCRATCH_BYTES, dtype=torch.uint8, device=memory.pool.device)
        self._probe = torch.zeros(1, dtype=torch.uint8)
        self._endpoint = _endpoint(memory, self._scratch, UcxEnd.of_this_process(self._probe.data_ptr()))
        tensors = (memory.pool, memory.staging, self._scratch)
        self._registrations = [self._register(tensor) for tensor in tensors if tensor.numel()]
        self._peers: dict[WorkerId, NixlPeer] = {}
        self._local: dict[RunTable, Any] = {}  # own descriptors, of which peers with KV alike have the same
        self._broken: set[WorkerId] = set()  # of these, those whose connection broke

    def metadata(self) -> bytes:
        """Where the regions lie, then the agent's own metadata."""
        content = ENDPOINT.pack(*self._endpoint) + bytes(self._agent.get_agent_metadata())
        return MAGIC + xxhash.xxh3_64_digest(content) + content

    def add_peer(self, peer: WorkerId, metadata: bytes, local: RunTable, remote: RunTable) -> str:
        """Loads the peer's agent, connects, and prepares a descriptor per run of either end."""
        check_route(local, remote)
        theirs, agent_metadata = _unpack(peer, metadata)
        for table, endpoint in ((local, self._endpoint), (remote, theirs)):
            check_table(table, endpoint.extent(table.region)[1])
        known = self._peers.get(peer)
        if known is not None and known.metadata == metadata and peer not in self._broken:
            path = known.path
            if (known.local_table, known.remote_table) == (local, remote):
                return path
            self._agent.release_dlist_handle(known.remote)
        else:
            self.remove_peer(peer)
            path = self._connect(peer, theirs, agent_metadata)
        try:
            self._peers[peer] = NixlPeer(
                metadata,
                path,
                local,
                remote,
                self._prepare_local(local),
                self._prepare(str(peer), theirs, remote),
            )
        except Exception as error:
            self._peers.pop(peer, None)
            self._forget_agent(str(peer))
            raise _failure(f"NIXL could not prepare transfers with worker {peer}", error) from error
        return path

    def expect_peer(self, peer: WorkerId, metadata: bytes) -> None:
        """Nothing is needed of this end but `progress`."""

    def remove_peer(self, peer: WorkerId) -> None:
        """Takes in what has arrived; then releases the descriptors of the peer's runs and forgets its agent."""
        self.progress()
        self._broken.discard(peer)
        known = self._peers.pop(peer, None)
        if known is not None:
            self._agent.release_dlist_handle(known.remote)
            self._forget_agent(str(peer))

    def post(self, peer: WorkerId, direction: Direction, local: RunIds, remote: RunIds) -> NixlTransfer:
        """Posts one transfer request for all runs given."""
        known = self._peers.get(peer)
        if known is None:
            raise HandoffError(f"worker {peer} is not connected; the request is placed again")
        check_runs(local, known.local_table, remote, known.remote_table)
        operation = "WRITE" if direction is Direction.WRITE else "READ"
        try:
            handle = self._agent.make_prepped_xfer(operation, known.local, local, known.remote, remote)
            return self._start(peer, handle)
        except Exception as error:
            what = f"NIXL could not {operation} runs of worker {peer}"
            raise _lost(peer, what, error, self._broken) from error

    def progress(self) -> None:
        """Collecting notifications makes UCX progress until nothing more is there."""
        self._agent.get_new_notifs()

    def close(self) -> None:
        """Forgets all peers and deregisters the regions."""
        for peer in list(self._peers):
            self.remove_peer(peer)
        for descriptors in self._local.values():
            self._agent.release_dlist_handle(descriptors)
        for registration in self._registrations:
            self._agent.deregister_memory(registration)

    def _register(self, tensor: torch.Tensor) -> Any:  # noqa: ANN401 - an opaque handle
        try:
            return self._agent.register_memory(tensor)
        except Exception as error:
            raise ConfigError(
                f"NIXL cannot register {tensor.numel()} bytes of memory: {error}; is `ulimit -l` too low for RDMA?"
            ) from error

    def _connect(self, peer: WorkerId, theirs: Endpoint, agent_metadata: bytes) -> str:
        """Loads the peer's agent and warms the pair up; returns the path."""
        name = self._load_agent(peer, agent_metadata)
        if name != str(peer):
            self._forget_agent(name)
            raise HandoffError(f"the metadata of worker {peer} is that of {name}; the request is placed again")
        try:
            self._warm_up(peer, theirs)
        except Exception as error:
            self._forget_agent(name)
            raise _failure(f"NIXL could not connect to worker {peer}", error) from error
        return self._path_to(peer, theirs)

    def _path_to(self, peer: WorkerId, theirs: Endpoint) -> str:
        if self._backends != ("UCX",):
            return "+".join(self._backends).lower()
        path, refusal = path_between(
            self._endpoint.ucx_end(), theirs.ucx_end(), is_host_memory=self._endpoint.memory_type == b"DRAM"
        )
        if refusal is not None:
            logger.warning(
                "worker %s is on this host, but its memory may not be accessed (%s), so KV goes over TCP, about 2.5 "
                "times slower: run both as one user and give them CAP_SYS_PTRACE (docker: --cap-add=SYS_PTRACE), "
                "or set /proc/sys/kernel/yama/ptrace_scope to 0",
                peer,
                refusal.strerror,
            )
        return path

    def _prepare_local(self, table: RunTable) -> Any:  # noqa: ANN401 - an opaque handle
        """Descriptors of this rank's runs, prepared once: there are as many tables as kinds of peers, so few."""
        if table not in self._local:
            self._local[table] = self._prepare(LOCAL_SIDE, self._endpoint, table)
        return self._local[table]

    def _prepare(self, agent_name: str, endpoint: Endpoint, table: RunTable) -> Any:  # noqa: ANN401 - an opaque handle
        """Prepares one descriptor per run of a table: `[num_runs, (address, bytes, device)]`."""
        descriptors = np.empty((table.num_runs, 3), dtype=np.uint64)
        descriptors[:, 0] = table.starts() + np.uint64(endpoint.extent(table.region)[0])
        descriptors[:, 1] = table.run_bytes
        descriptors[:, 2] = endpoint.device
        return self._agent.prep_xfer_dlist(agent_name, descriptors, endpoint.memory_type.decode())

    def _warm_up(self, peer: WorkerId, theirs: Endpoint) -> None:
        """Writes the peer's scratch line once, which makes UCX connect the pair."""
        sides = [
            self._agent.get_xfer_descs([(end.scratch_address, SCRATCH_BYTES, end.device)], end.memory_type.decode())
            for end in (self._endpoint, theirs)
        ]
        write = self._start(peer, self._agent.initialize_xfer("WRITE", *sides, str(peer)))
        deadline_s = time.monotonic() + WARM_UP_S
        while write.poll() is TransferState.IN_FLIGHT:
            if time.monotonic() > deadline_s:
                write.release()
                raise HandoffError(f"worker {peer} did not answer over NIXL within {WARM_UP_S:g} s; is it stopped?")
            time.sleep(WARM_UP_POLL_S)

    def _start(self, peer: WorkerId, handle: Any) -> NixlTransfer:  # noqa: ANN401 - an opaque NIXL handle
        """Starts a transfer request; releases it when it cannot be started."""
        transfer = NixlTransfer(self._agent, handle, peer, self._broken)
        try:
            self._agent.transfer(handle)
        except BaseException:
            transfer.release()
            raise
        return transfer

    def _load_agent(self, peer: WorkerId, agent_metadata: bytes) -> str:
        try:
            return str(self._agent.add_remote_agent(agent_metadata), "utf-8")
        except Exception as error:
            raise _failure(f"NIXL could not connect to worker {peer}", error) from error

    def _forget_agent(self, name: str) -> None:
        try:
            self._agent.remove_remote_agent(name)
        except Exception as error:  # noqa: BLE001 - the peer is gone; what NIXL keeps of it costs only its memory
            logger.warning("NIXL kept agent %s: %s", name, error)


def _make_agent(worker: WorkerId, backends: Sequence[str]) -> Any:  # noqa: ANN401 - untyped
    try:
        agent = nixl_api.nixl_agent(str(worker), nixl_api.nixl_agent_config(enable_prog_thread=False, backends=[]))
    except Exception as error:
        raise ConfigError(f"NIXL does not start: {error}; is the package nixl installed whole?") from error
    for backend in backends:
        if backend not in (plugins := sorted(agent.get_plugin_list())):
            raise ConfigError(f"the NIXL backend is {backend!r}; this machine has {', '.join(plugins)}")
        try:
            agent.create_backend(backend)
        except Exception as error:
            raise ConfigError(f"the NIXL backend {backend!r} does not start: {error}; 'UCX' runs anywhere") from error
    return agent


def _endpoint(memory: RankMemory, scratch: torch.Tensor, ucx: UcxEnd) -> Endpoint:
    return Endpoint(
        pool_address=memory.pool.data_ptr(),
        pool_bytes=memory.pool.numel(),
        staging_address=memory.staging.data_ptr(),
        staging_bytes=memory.staging.numel(),
        scratch_address=scratch.data_ptr(),
        device=max(scratch.get_device(), 0),
        memory_type=b"VRAM" if scratch.is_cuda else b"DRAM",
        host=ucx.host,
        pid=ucx.pid,
        probe_address=ucx.probe_address,
        allows_cma=ucx.allows_cma,
        allows_rdma=ucx.allows_rdma,
    )


def _unpack(peer: WorkerId, metadata: bytes) -> tuple[Endpoint, bytes]:
    """The endpoint, and the metadata of NIXL's agent."""
    begin = len(MAGIC) + DIGEST_BYTES
    digest, content = metadata[len(MAGIC) : begin], metadata[begin:]
    is_whole = len(content) >= ENDPOINT.size and digest == xxhash.xxh3_64_digest(content)
    if not metadata.startswith(MAGIC) or not is_whole:
        raise HandoffError(
            f"worker {peer} sent NIXL metadata that begins with {metadata[:4]!r}, {len(metadata)} bytes, instead of "
            f"{MAGIC!r} and its digest; run the same version on both"
        )
    return Endpoint(*ENDPOINT.unpack_from(content)), content[ENDPOINT.size :]


def _failure(what: str, error: Exception) -> HandoffError:
    """An error of NIXL's as one of ours; one of ours as it is."""
    if isinstance(error, HandoffError):
        return error
    if isinstance(error, nixl.nixlRemoteDisconnectError):
        return LostConnectionError(f"{what}: the connection broke ({error}); the request is placed again")
    return HandoffError(f"{what}: {error}; the request is placed again")


def _lost(peer: WorkerId, what: str, error: Exception, broken: set[WorkerId]) -> HandoffError:
    """As `_failure`, of a transfer; notes a peer whose connection broke, so that it is connected anew."""
    failure = _failure(what, error)
    if isinstance(failure, LostConnectionError):
        broken.add(peer)
    return failure
