"""How many accepted requests wait for a worker, and whether one more may. Not in which order."""

from collections import Counter

from core.errors import OverloadedError

RETRY_AFTER_S = 1  # nothing says how long: a worker that comes takes all that wait at once


class WaitingRoom:
    """Counts requests from their arrival until a decode worker generates them for the first time.

    A tenant may have so many waiting as its share of all tenants that wait, so that one tenant's burst does not keep
    the others out. All together may so be somewhat more than the bound: with n tenants up to 1 + ln n times as many.

    Args:
        max_waiting: of one tenant while no other waits.
    """

    def __init__(self, max_waiting: int) -> None:
        self._max_waiting = max_waiting
        self._tenants: dict[str, str] = {}  # by request id
        self._num_of: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._tenants)

    def refusal(self, tenant: str) -> OverloadedError | None:
        """Why a tenant must not have another request waiting; None when it may."""
        num_others = len(self._num_of) - (tenant in self._num_of)
        share = max(1, self._max_waiting // (num_others + 1))
        if self._num_of[tenant] < share:
            return None
        whose = f"its share of {self._max_waiting} beside {num_others} others" if num_others else "the most"
        return OverloadedError(
            f"{self._num_of[tenant]} requests wait for a worker, {whose} (--max-waiting); "
            f"try again in {RETRY_AFTER_S} s",
            retry_after_s=RETRY_AFTER_S,
            reason="waiting",
        )

    def enter(self, request_id: str, tenant: str) -> None:
        """An accepted request waits; a second word about it changes nothing."""
        if request_id not in self._tenants:
            self._tenants[request_id] = tenant
            self._num_of[tenant] += 1

    def leave(self, request_id: str) -> bool:
        """It is being generated, or has ended; one that does not wait is ignored. Returns whether it waited."""
        tenant = self._tenants.pop(request_id, None)
        if tenant is not None:
            self._num_of[tenant] -= 1
            if not self._num_of[tenant]:
                del self._num_of[tenant]
        return tenant is not None
