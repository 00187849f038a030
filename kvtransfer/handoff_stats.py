"""Totals of the handoffs that a worker has sent, whatever their targets."""

from dataclasses import dataclass


@dataclass(slots=True)
class HandoffStats:
    """Totals since the start of the process.

    Attributes:
        num_sent: handoffs that the target took over.
        num_bytes: bytes posted to targets, abandoned handoffs included.
        num_bytes_saved: bytes of blocks that targets had already.
        write_s: seconds in which bytes of a write were under way, summed over writes.
        exposed_s: seconds from the last token computed to the target's acknowledgement, summed over
            `num_sent`: the part that compute did not hide.
    """

    num_sent: int = 0
    num_bytes: int = 0
    num_bytes_saved: int = 0
    write_s: float = 0.0
    exposed_s: float = 0.0
