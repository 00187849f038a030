"""Names of workers and of the work they are given. Not for addresses of HTTP clients or of models."""

import secrets
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class WorkerId:
    """A worker's stable name and the incarnation that grows with every start of it.

    Two ids with one name and different incarnations are different processes; the lower one is dead.
    """

    name: str
    incarnation: int

    def __str__(self) -> str:
        return f"{self.name}@{self.incarnation}"

    def __hash__(self) -> int:
        return hash(self.name)  # which its string keeps: ids are looked up many times for every request

    def supersedes(self, other: "WorkerId") -> bool:
        """Whether `other` is an earlier process of the same worker."""
        return self.name == other.name and self.incarnation > other.incarnation

    def outlasts(self, other: "WorkerId") -> bool:
        """Whether `other` is dead for certain once this process is: it is the same one, or an earlier one."""
        return self.name == other.name and self.incarnation >= other.incarnation


def rank_id(worker: WorkerId, rank: int) -> WorkerId:
    """How one rank (0-based) of a worker is known on the transfer plane: rank 0 as the worker itself.

    Incarnations supersede each other rank by rank, because all ranks of a worker start and end together.
    """
    return worker if rank == 0 else WorkerId(f"{worker.name}/{rank}", worker.incarnation)


@dataclass(frozen=True, slots=True)
class WorkerEndpoint:
    """Where a worker's gRPC services listen.

    Attributes:
        worker: the worker's id.
        address: `host:port` of its gRPC server, reachable from routers and other workers.
    """

    worker: WorkerId
    address: str


def new_request_id() -> str:
    """An id that no other request of any router has: 32 hexadecimal digits."""
    return secrets.token_hex(16)


def handoff_id(request_id: str, attempt: int) -> str:
    """Names one attempt (0-based) to serve a request: one placement, one movement of KV.

    Everything a worker says about the request carries this id, so that words from an abandoned attempt are
    recognised and dropped.
    """
    return f"{request_id}.{attempt}"


def request_id_of(handoff_id: str) -> str:
    """The request that an attempt serves: inverse of `handoff_id`."""
    return handoff_id.rpartition(".")[0]
