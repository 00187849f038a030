"""What has gone from one worker to another: counts only, kept by the sender and shown by the router."""

from dataclasses import dataclass, field

from core.ids import WorkerId


@dataclass(slots=True)
class PairStats:
    """Totals of one pair of workers, in one direction, since the sender started.

    Attributes:
        transport: name of the transport in use, such as `nixl`; empty before the first connection.
        path: what carries its bytes, such as `cma`, `tcp` or `gloo`; empty when that is not known.
        num_handoffs: handoffs that the peer took over.
        num_bytes: bytes moved, those of abandoned handoffs included.
        num_bytes_saved: bytes of blocks that the peer had already.
        num_descriptors: contiguous pieces that the bytes were moved in.
        busy_s: seconds in which bytes of a handoff were under way, summed over handoffs.
        exposed_s: of these, seconds after the last prompt token was computed.
        acknowledge_s: seconds from the last block's arrival, or from the last prompt token where that was later, to
            the peer's acknowledgement, summed over handoffs.
        num_expired_leases: leases that ended because nobody renewed them.
        num_retried: moves that were tried again over another transport.
        failures: handoffs that failed, by the code of the error.
    """

    transport: str = ""
    path: str = ""
    num_handoffs: int = 0
    num_bytes: int = 0
    num_bytes_saved: int = 0
    num_descriptors: int = 0
    busy_s: float = 0.0
    exposed_s: float = 0.0
    acknowledge_s: float = 0.0
    num_expired_leases: int = 0
    num_retried: int = 0
    failures: dict[str, int] = field(default_factory=dict)

    @property
    def hidden_fraction(self) -> float:
        """Part of the transfer time that passed while the prompt was still being computed; 1 without transfers."""
        return 1.0 - self.exposed_s / self.busy_s if self.busy_s else 1.0

    def fail(self, code: str) -> None:
        """Counts a failure."""
        self.failures[code] = self.failures.get(code, 0) + 1


@dataclass(frozen=True, slots=True)
class PairReport:
    """What a worker says of the KV that has moved between it and one peer, in one direction.

    Attributes:
        peer: the other worker.
        direction: `push` when the source writes, `pull` when the target reads; empty when that is not known.
        stats: totals; a copy, so that it does not change any more.
    """

    peer: WorkerId
    direction: str
    stats: PairStats


@dataclass(frozen=True, slots=True)
class TransferReport:
    """What a worker says of all its peers, in order of their ids.

    Attributes:
        sent: what it has sent to each.
        received: what went wrong, at its end, with what each has sent: failures and expired leases, no other counts.
    """

    sent: tuple[PairReport, ...] = ()
    received: tuple[PairReport, ...] = ()


def pair_of(pairs: dict[WorkerId, PairStats], peer: WorkerId) -> PairStats:
    """The totals of a peer, begun when there are none yet. Those of its earlier incarnations go: they are dead."""
    if (stats := pairs.get(peer)) is None:
        for old in [known for known in pairs if peer.supersedes(known)]:
            del pairs[old]
        stats = pairs[peer] = PairStats()
    return stats
