"""All that a router tells about itself, put together by its settings. What is off costs nothing."""

from dataclasses import dataclass
from typing import Protocol

from prometheus_client import CollectorRegistry, ProcessCollector

from core.clock import Clock
from router.config import RouterConfig
from router.dispatch.dispatcher import FleetDispatcher
from router.observe.access_log import log_call
from router.observe.call import Calls, accept
from router.observe.request_metrics import RequestMetrics
from router.observe.request_times import RequestObserver, RequestTimes, RequestWatch
from router.observe.router_collector import Agreement, RouterCollector
from router.observe.worker_collector import WorkerCollector
from router.roles.snapshot import Limits


class Tracer(Protocol):
    """Makes spans; `router.observe.tracing` has the real one, whose libraries only those import who trace."""

    def ended(self, times: RequestTimes) -> None:
        """A request has ended."""
        ...

    def close(self) -> None:
        """Exports what is left, for a few seconds at most; blocks."""
        ...


@dataclass(frozen=True, slots=True)
class Observation:
    """What hears of a router's requests.

    Attributes:
        watch: told by the dispatcher.
        calls: told by the front ends.
        registry: what Prometheus gets; None when nobody is to ask.
        tracer: None when nobody is to get spans.
    """

    watch: RequestWatch
    calls: Calls
    registry: CollectorRegistry | None
    tracer: Tracer | None

    def register(self, dispatcher: FleetDispatcher, agreement: Agreement, clock: Clock) -> None:
        """Has Prometheus also get what is known of the router, its workers and its process; once."""
        if self.registry is not None:
            self.registry.register(RouterCollector(dispatcher, self.watch.totals, agreement, clock))
            self.registry.register(WorkerCollector(dispatcher.fleet))
            ProcessCollector(registry=self.registry)


def build_observation(
    config: RouterConfig, router_id: str, clock: Clock, limits: Limits, meter: RequestObserver
) -> Observation:
    """What the settings ask for. The meter hears of every request, and every call has its log line, in any case."""
    observers, on_called = [meter], [log_call]
    registry = CollectorRegistry() if config.metrics_port is not None else None
    if registry is not None:
        metrics = RequestMetrics(registry)
        observers.append(metrics)
        on_called.append(metrics.called)
    tracer = None if config.otlp_endpoint is None else new_tracer(config.otlp_endpoint, router_id, clock)
    on_ended = [] if tracer is None else [tracer.ended]
    watch = RequestWatch(clock, limits, observers, on_arrived=[accept], on_ended=on_ended)
    return Observation(watch, Calls(clock, on_called, is_tracing=tracer is not None), registry, tracer)


def new_tracer(endpoint: str, router_id: str, clock: Clock) -> Tracer:
    """One that exports to a collector."""
    from router.observe.tracing import open_tracer  # noqa: PLC0415 - takes 0.1 s, which only those wait for who trace

    return open_tracer(endpoint, clock, router_id)
