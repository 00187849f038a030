"""How two workers agree on a transport: one says what it can use, the other chooses. No input or output."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from core.errors import HandoffError
from core.ids import WorkerId
from kvtransfer.geometry import WorkerGeometry

Offers = Mapping[str, Sequence[bytes]]
"""Metadata of every rank by name of the transport, preferred ones first."""


@dataclass(frozen=True, slots=True)
class Introduction:
    """What a source says of itself to the target it wants to reach.

    Attributes:
        source: who is going to start transfers.
        target: the incarnation it means to talk to.
        fingerprint: of the model it serves.
        geometry: how its KV lies on its ranks.
        offers: what it can use with this target now.
    """

    source: WorkerId
    target: WorkerId
    fingerprint: str
    geometry: WorkerGeometry
    offers: Offers


@dataclass(frozen=True, slots=True)
class Agreement:
    """What the target answers.

    Attributes:
        transport: the transport it has chosen.
        metadata: its own, of every rank.
        geometry: how its KV lies on its ranks.
    """

    transport: str
    metadata: Sequence[bytes]
    geometry: WorkerGeometry


def choose_transport(source: WorkerId, theirs: Offers, mine: Offers) -> str:
    """The first transport that a source offers and this worker has.

    Raises:
        HandoffError: there is none; the message has both lists.
    """
    for name in theirs:
        if name in mine:
            return name
    raise HandoffError(
        f"no transport is common to both workers: {source} offers {names_of(theirs)}, here there is "
        f"{names_of(mine)}; see --kv-transport"
    )


def names_of(offers: Offers) -> str:
    """Names of transports, for people."""
    return ", ".join(offers) or "none"
