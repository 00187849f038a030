"""The bodies of the Ray actors: one process each, around a worker or a router. They only start and stop it.

Plain classes without Ray, so that only modules called `deploy.ray_…` call it. A start that fails is kept and told by
`ready`, so that its cause arrives as the typed error it is; whoever asked ends the process then, and starts another.
"""

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Protocol

import uvloop

from core.crash import depart, die
from core.errors import BatonError, InternalError, UnavailableError
from core.garbage import frozen_heap, rare_collections
from core.ids import WorkerEndpoint
from core.logs import configure_logging
from core.processes import RankProcess, this_process
from deploy.newest_call import NewestCall
from router.config import RouterConfig
from router.departure import RouterDeparture
from router.process import RouterAddresses, run_router
from worker.config import WorkerConfig

if TYPE_CHECKING:
    from worker.follower import FollowerProcess
    from worker.process import WorkerProcess
    from worker.rendezvous import RendezvousStore

# Objects that came and stayed since the youngest were last looked at, and how often that happens before older ones
# are. Python's 700 has it look at a busy router twenty times a second, for nothing: what it makes ends by itself.
THRESHOLDS = (10_000, 10, 10)
STORE_TIMEOUT_S = 10.0  # rank 0 imports torch before it can host the store; whoever asks asks again

logger = logging.getLogger(__name__)


def log_to_ray(log_format: str, process: str) -> None:
    """Logs to stderr, which Ray keeps in its session folder; `BATON_LOG_LEVEL` sets the level."""
    configure_logging(log_format, os.environ.get("BATON_LOG_LEVEL", "INFO").upper(), process)


def on_sigterm(act: Callable[[], object]) -> None:
    """Has SIGTERM do something else than end the process at once. From the main thread, where Ray makes actors."""
    signal.signal(signal.SIGTERM, lambda _number, _frame: act())


class ActorHost(Protocol):
    """What a rank's actor asks of whoever starts the ranks of its worker."""

    def node(self) -> str:
        """The machine of the calling process, as whoever starts and kills processes names it."""
        ...

    def leader_store_address(self) -> str:
        """What `RankActor.store_address` of rank 0 says. For the other ranks.

        Raises:
            UnavailableError: rank 0 does not come up.
        """
        ...


class HostedProcess:
    """What every actor's process says of itself besides its work."""

    def __init__(self, node: str, log_format: str, name: str) -> None:
        log_to_ray(log_format, name)
        self._node = node
        self._runs = NewestCall()

    def process(self) -> RankProcess:
        """Which process it is, on which machine; answered at once."""
        return RankProcess(self._node, this_process())

    def run(self) -> None:
        """Lasts until `stop` has been called: a call that fails before says that the process is dead.

        Until it is called again, too: whoever calls has lost the call before, which would keep a thread from others.
        """
        self._runs.wait()


class RankActor(HostedProcess):
    """One rank of a worker. It starts on a thread of its own, because the ranks of a worker wait for each other.

    On SIGTERM rank 0 has the worker leave, which ends the process; the others end when it has.

    Args:
        config: of this rank.
        host: where it has come up, and who leads.
    """

    def __init__(self, config: WorkerConfig, host: ActorHost) -> None:
        super().__init__(host.node(), config.log_format, config.rank_name)
        self._config = config
        self._host = host
        self._store: Future[RendezvousStore] = Future()
        self._outcome: Future[WorkerProcess | FollowerProcess | BatonError] = Future()
        self._readies = NewestCall()
        self._outcome.add_done_callback(lambda _: self._readies.end())
        self._is_stopping = False
        on_sigterm(self._leave)
        threading.Thread(target=self._start, name="start", daemon=True).start()

    def store_address(self) -> str:
        """Where the ranks of this worker meet; of rank 0 of several only."""
        return self._store.result(STORE_TIMEOUT_S).address

    def ready(self) -> WorkerEndpoint | BatonError | None:
        """Waits until the rank serves; where its worker listens if it is rank 0, or why it does not.

        A call that another one follows ends without an answer, as `run` does.
        """
        self._readies.wait()
        if not self._outcome.done():
            return None
        outcome = self._outcome.result()
        return outcome if isinstance(outcome, BatonError) else outcome.endpoint

    def stop(self) -> None:
        """Ends the rank if it serves; the process is Ray's to end."""
        self._is_stopping = True
        if self._outcome.done() and not isinstance(outcome := self._outcome.result(), BatonError):
            outcome.stop()
        self._runs.end()

    def _leave(self) -> None:
        """SIGTERM: what serves leaves, what does not is not waited for."""
        outcome = self._outcome.result() if self._outcome.done() else None
        if self._is_stopping or outcome is None or isinstance(outcome, BatonError):
            depart()
        outcome.leave()

    def _start(self) -> None:
        try:
            self._outcome.set_result(self._start_process())
        except Exception as error:
            logger.exception("%s did not start", self._config.rank_name)
            self._outcome.set_result(error if isinstance(error, BatonError) else InternalError(repr(error)))

    def _start_process(self) -> "WorkerProcess | FollowerProcess":
        # torch is imported in the ranks' processes only
        from worker.follower import FollowerProcess  # noqa: PLC0415
        from worker.process import WorkerProcess  # noqa: PLC0415
        from worker.rendezvous import RendezvousStore  # noqa: PLC0415

        if self._node != self._config.node:
            raise UnavailableError(
                f"{self._config.rank_name} came up on node {self._node}, and its settings are for "
                f"{self._config.node}, which has left meanwhile; it is started again"
            )
        if self._config.rank > 0:
            return FollowerProcess(self._config, self._host.leader_store_address())
        if self._config.topology.world_size == 1:
            return WorkerProcess(self._config)
        store = RendezvousStore(self._config.host)
        self._store.set_result(store)
        return WorkerProcess(self._config, store.address)


class RouterActor(HostedProcess):
    """A router process: the router's event loop runs on a thread of its own.

    A router that is told to leave by SIGTERM, or over its cluster port, ends its process when it has.

    Args:
        config: of the router.
        name: of the router among several.
        node: the machine, as whoever starts and kills processes names it.
    """

    def __init__(self, config: RouterConfig, name: str, node: str) -> None:
        super().__init__(node, config.log_format, name)
        self._started: Future[RouterAddresses | BatonError] = Future()
        self._readies = NewestCall()
        self._started.add_done_callback(lambda _: self._readies.end())
        self._loop = uvloop.new_event_loop()
        self._departure = RouterDeparture(config.drain_timeout_s)
        self._is_stopping = False
        on_sigterm(self._leave)
        self._thread = threading.Thread(target=self._run, args=(config,), name="router", daemon=True)
        self._thread.start()

    def ready(self) -> RouterAddresses | BatonError | None:
        """Where the router listens, or why it does not; None for a call that another one follows."""
        self._readies.wait()
        return self._started.result() if self._started.done() else None

    def stop(self) -> None:
        """Ends the router; requests under way are told so. The process is Ray's to end."""
        self._is_stopping = True
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._departure.order, 0.0)
            self._thread.join()
        self._runs.end()

    def _leave(self) -> None:
        """SIGTERM: requests under way end first, unless the router has ended already."""
        if not self._thread.is_alive():
            depart()
        self._loop.call_soon_threadsafe(self._departure.order)

    def _run(self, config: RouterConfig) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(serve_router(config, self._departure, self._started))
            if not self._is_stopping:
                depart()
        except Exception as error:
            logger.exception("the router ended")
            if self._started.done():
                die()  # a dead router must not look alive: another one is started
            self._started.set_result(error if isinstance(error, BatonError) else InternalError(repr(error)))


async def serve_router(
    config: RouterConfig, departure: RouterDeparture, started: "Future[RouterAddresses | BatonError]"
) -> None:
    """Serves until it is to leave. No method: Ray would run all calls of an actor that has one as coroutines."""
    async with run_router(config, departure) as addresses:
        with frozen_heap(), rare_collections(*THRESHOLDS):
            started.set_result(addresses)
            await departure.wait_ordered()
