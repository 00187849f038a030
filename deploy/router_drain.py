"""Lets the requests of all routers end before a cluster stops. Nobody starts a router again meanwhile."""

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from core.errors import BatonError

LOOK_S = 0.2  # between two looks at routers that let requests end
SLACK_S = 15.0  # past the time for requests, for connections to close


class DrainingRouter(Protocol):
    """A router that can be told to leave."""

    def leave(self, drain_timeout_s: float) -> None:
        """Has it end its process when its requests have ended; a further call can only shorten the time.

        Raises:
            BatonError: it does not answer.
        """
        ...

    def num_requests(self) -> int:
        """Requests under way.

        Raises:
            BatonError: it does not answer.
        """
        ...


def drain_routers(
    routers: Sequence[DrainingRouter],
    drain_timeout_s: float,
    is_hurried: Callable[[], bool],
    say: Callable[[str], None],
) -> None:
    """Has routers leave, and waits until they have; bounded in time.

    Args:
        routers: all of a cluster; those that do not answer count as gone.
        drain_timeout_s: seconds for requests to end.
        is_hurried: whether nothing is to be waited for any more; asked a few times a second.
        say: hears how many requests are left, when that changes.
    """
    until_s = time.monotonic() + drain_timeout_s
    left, told, has_hurried = tell_to_leave(routers, drain_timeout_s), 0, False
    while left and time.monotonic() < until_s + SLACK_S:
        if is_hurried() and not has_hurried:
            has_hurried = True
            left = tell_to_leave(left, 0.0)
        counts = {router: count for router in left if (count := requests_of(router)) is not None}
        left, num_requests = list(counts), sum(counts.values())
        if num_requests and num_requests != told:
            told = num_requests
            left_s = max(0.0, until_s - time.monotonic())
            say(f"{num_requests} request(s) are still under way; they have {left_s:.0f} s")
        time.sleep(LOOK_S if left else 0.0)


def tell_to_leave(routers: Sequence[DrainingRouter], drain_timeout_s: float) -> list[DrainingRouter]:
    """Those that have heard it."""
    told = []
    for router in routers:
        try:
            router.leave(drain_timeout_s)
        except BatonError:
            continue  # it is gone
        told.append(router)
    return told


def requests_of(router: DrainingRouter) -> int | None:
    """Requests under way at a router; None when it is gone."""
    try:
        return router.num_requests()
    except BatonError:
        return None
