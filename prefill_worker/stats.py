"""Totals of the handoffs a worker has sent."""

from dataclasses import dataclass


@dataclass(slots=True)
class HandoffStats:
    """Totals since the start of the process.

    Attributes:
        num_sent: handoffs that the target took over.
        num_bytes: bytes posted to targets, abandoned handoffs included.
        write_s: seconds between posting a write and hearing of its end, summed; one write per handoff at a time.
        exposed_s: seconds from the last prompt token computed to the target's acknowledgement, summed over
            `num_sent`: the part that compute did not hide.
    """

    num_sent: int = 0
    num_bytes: int = 0
    write_s: float = 0.0
    exposed_s: float = 0.0
