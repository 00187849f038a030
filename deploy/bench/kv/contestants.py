"""Everything that is measured by the bytes it copies: our transports, and what they are compared with."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from deploy.bench.kv.ends import MakeSource, MakeTarget
from deploy.bench.kv.gloo_ends import GlooSource, GlooTarget
from deploy.bench.kv.grpc_ends import GrpcSource, GrpcTarget
from deploy.bench.kv.local_ends import MakeCopier, TorchCopier
from deploy.bench.kv.mooncake_ends import MooncakeSource, MooncakeTarget
from deploy.bench.kv.pairs import LocalPair, Pair, ProcessPair
from deploy.bench.kv.socket_ends import SocketSource, SocketTarget
from deploy.bench.kv.transport_ends import TransportCopier, TransportSource, TransportTarget

SHARED_MEMORY = {"UCX_TLS": "all"}  # then UCX takes it between processes of one host, whatever the user has set
TCP = {"UCX_TLS": "tcp"}


@dataclass(frozen=True, slots=True)
class Contestant:
    """One of them.

    Attributes:
        name: as figures have it.
        make: a source and a target in two processes, or a copier in one.
        environment: variables of its processes.
        is_optional: whether it may be missing on this machine.
    """

    name: str
    make: tuple[MakeSource, MakeTarget] | MakeCopier
    environment: Mapping[str, str] = field(default_factory=dict)
    is_optional: bool = False

    def start(self, pool_bytes: int, cores: tuple[int, int]) -> Pair:
        """Starts its processes.

        Raises:
            InternalError: it does not work here.
        """
        if isinstance(self.make, tuple):
            return ProcessPair(self.make, pool_bytes, cores, self.environment)
        return LocalPair(self.make, pool_bytes, cores[0], self.environment)


def ends_of(transport: str, path: str) -> tuple[MakeSource, MakeTarget]:
    """Both ends of one of our transports, whose bytes are to go that way."""
    return partial(TransportSource, transport, path), partial(TransportTarget, transport)


CONTESTANTS = (
    Contestant("memcpy", TorchCopier),
    Contestant("in-process", TransportCopier),
    Contestant("nixl-shm", ends_of("nixl", "cma"), SHARED_MEMORY),
    Contestant("nixl-tcp", ends_of("nixl", "tcp"), TCP),
    Contestant("collective", ends_of("collective", "gloo")),
    Contestant("socket", (SocketSource, SocketTarget)),
    Contestant("grpc", (GrpcSource, GrpcTarget)),
    Contestant("gloo", (GlooSource, GlooTarget)),
    Contestant("mooncake-tcp", (MooncakeSource, MooncakeTarget), is_optional=True),
)
OTHERS = ("grpc", "gloo", "mooncake-tcp")  # what our two paths are to be ahead of
