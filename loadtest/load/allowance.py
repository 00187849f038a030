"""How many requests a run sends, and until when."""

from dataclasses import dataclass


@dataclass(slots=True)
class Allowance:
    """Counts the requests of one run.

    Attributes:
        num_requests: no more are sent; None for as many as come in time.
        duration_s: nothing is sent that is due at this time or later; None for no such time.
        num_taken: so far.
    """

    num_requests: int | None
    duration_s: float | None
    num_taken: int = 0

    def is_left(self, due_s: float) -> bool:
        """Whether a request that is due then may be sent."""
        is_in_time = self.duration_s is None or due_s < self.duration_s
        return is_in_time and (self.num_requests is None or self.num_taken < self.num_requests)

    def take(self, due_s: float) -> int | None:
        """The number of the next request, from 0; None when it may not be sent."""
        if not self.is_left(due_s):
            return None
        self.num_taken += 1
        return self.num_taken - 1
