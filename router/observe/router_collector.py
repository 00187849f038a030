"""Prometheus metrics of a router itself, read when somebody asks for them."""

from collections.abc import Iterator
from importlib.metadata import version
from typing import Protocol

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from core.clock import Clock
from core.request import Role
from router.dispatch.dispatcher import FleetDispatcher
from router.observe.families import PREFIX, counter, gauge
from router.observe.request_times import Totals


class Agreement(Protocol):
    """What a router knows of those that it shares its state with."""

    @property
    def is_leader(self) -> bool:
        """Whether it decides about roles."""
        ...

    @property
    def trouble(self) -> str | None:
        """Why the shared state could not be reached the last time; None when it could."""
        ...


class RouterCollector(Collector):
    """Runs on the event loop, as all it reads does.

    Args:
        dispatcher: knows the requests and the fleet.
        totals: counted while requests were served.
        agreement: what it shares with other routers.
        clock: of the requests.
    """

    def __init__(
        self,
        dispatcher: FleetDispatcher,
        totals: Totals,
        agreement: Agreement,
        clock: Clock,
    ) -> None:
        self._dispatcher = dispatcher
        self._totals = totals
        self._agreement = agreement
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        """All of them, as they are now."""
        yield from self._gauges()
        yield from self._counters()

    def _gauges(self) -> Iterator[Metric]:
        dispatcher = self._dispatcher
        roles = [link.role_state.role for link in dispatcher.fleet.links()]
        yield gauge(
            f"{PREFIX}workers", "Attached workers by role.", ["role"], (((role,), roles.count(role)) for role in Role)
        )
        oldest_s = dispatcher.oldest_waiting_s(self._clock.now_s())
        for name, meaning, value in (
            ("active_requests", "Requests accepted and not ended.", dispatcher.num_active),
            ("waiting_requests", "Those of them that no worker has been given.", dispatcher.num_waiting),
            (
                "oldest_waiting_seconds",
                "For how long the oldest prompt has waited that may not have begun.",
                oldest_s,
            ),
            ("leader", "1 if this router decides about roles.", self._agreement.is_leader),
            (
                "state_store_up",
                "1 if the state that routers share could be reached.",
                self._agreement.trouble is None,
            ),
        ):
            yield gauge(f"{PREFIX}{name}", meaning, [], [((), value)])
        yield gauge(f"{PREFIX}build_info", "1; says which version runs.", ["version"], [((version("baton"),), 1)])

    def _counters(self) -> Iterator[Metric]:
        totals = self._totals
        for name, meaning, value in (
            ("attempts", "Times that requests were given to workers, again included.", totals.num_attempts),
            ("resumes", "Those of them of an answer that had begun.", totals.num_resumed),
            ("moves", "Answers that went on at another worker while they were generated.", totals.num_moved),
        ):
            yield counter(f"{PREFIX}{name}", meaning, [], [((), value)])
        refused = [((reason,), number) for reason, number in sorted(totals.refused.items())]
        yield counter(
            f"{PREFIX}refusals", "Requests not accepted because too much waits, by what.", ["reason"], refused
        )
        returned = [((code,), number) for code, number in sorted(totals.returned.items())]
        yield counter(f"{PREFIX}returns", "Attempts that came back unfinished, by reason.", ["code"], returned)
