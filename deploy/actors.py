"""The bodies of the Ray actors: one process each, around a worker or a router. They only start and stop it.

Plain classes without Ray, so that `deploy.ray_cluster` is the only module that calls it. A start that fails is kept
and told by `ready`, so that its cause arrives as the typed error it is.
"""

import asyncio
import logging
import os
import threading
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import uvloop

from core.crash import die
from core.errors import BatonError, InternalError, UnavailableError
from core.ids import WorkerEndpoint
from core.logs import configure_logging
from router.config import RouterConfig
from router.process import RouterAddresses, run_router
from worker.config import WorkerConfig

if TYPE_CHECKING:
    from worker.follower import FollowerProcess
    from worker.process import WorkerProcess
    from worker.rendezvous import RendezvousStore

STORE_TIMEOUT_S = 10.0  # rank 0 imports torch before it can host the store; whoever asks asks again

logger = logging.getLogger(__name__)


def log_to_ray(log_format: str, process: str) -> None:
    """Logs to stderr, which Ray keeps in its session folder; `BATON_LOG_LEVEL` sets the level."""
    configure_logging(log_format, os.environ.get("BATON_LOG_LEVEL", "INFO").upper(), process)


class ActorHost(Protocol):
    """What a rank's actor asks of whoever starts, and starts again, the ranks of its worker."""

    def is_restarted(self) -> bool:
        """Whether this is not the first start of the actor, so that nobody waits to hear how it went."""
        ...

    def node(self) -> str:
        """The machine of the calling process, as `deploy.ray_cluster.RayCluster.kill` knows it."""
        ...

    def leader_store_address(self) -> str:
        """What `RankActor.store_address` of rank 0 says.

        Raises:
            UnavailableError: rank 0 does not come up.
        """
        ...


class RankActor:
    """One rank of a worker. It starts on a thread of its own, because the ranks of a worker wait for each other.

    A rank that fails to find the others, or to start again, ends its process, to be started once more. What keeps a
    rank from starting the first time is told by `ready`.
    """

    def __init__(self, config: WorkerConfig, host: ActorHost) -> None:
        log_to_ray(config.log_format, config.rank_name)
        self._config = replace(config, node=host.node())
        self._host = host
        self._store: Future[RendezvousStore] = Future()
        self._outcome: Future[WorkerProcess | FollowerProcess | BatonError] = Future()
        threading.Thread(target=self._start, name="start", daemon=True).start()

    def store_address(self) -> str:
        """Where the ranks of this worker meet; of rank 0 of several only."""
        return self._store.result(STORE_TIMEOUT_S).address

    def ready(self) -> WorkerEndpoint | BatonError | None:
        """Waits until the rank serves; where its worker listens if it is rank 0, or why it does not."""
        outcome = self._outcome.result()
        return outcome if isinstance(outcome, BatonError) else outcome.endpoint

    def stop(self) -> None:
        """Ends the rank if it serves; the process is Ray's to end."""
        if self._outcome.done() and not isinstance(outcome := self._outcome.result(), BatonError):
            outcome.stop()

    def _start(self) -> None:
        try:
            self._outcome.set_result(self._start_process())
        except Exception as error:
            logger.exception("%s did not start", self._config.rank_name)
            if isinstance(error, UnavailableError) or self._host.is_restarted():
                die()
            self._outcome.set_result(error if isinstance(error, BatonError) else InternalError(repr(error)))

    def _start_process(self) -> "WorkerProcess | FollowerProcess":
        # torch is imported in the ranks' processes only
        from worker.follower import FollowerProcess  # noqa: PLC0415
        from worker.process import WorkerProcess  # noqa: PLC0415
        from worker.rendezvous import RendezvousStore  # noqa: PLC0415

        if self._config.rank > 0:
            return FollowerProcess(self._config, self._host.leader_store_address())
        if self._config.topology.world_size == 1:
            return WorkerProcess(self._config)
        store = RendezvousStore(self._config.host)
        self._store.set_result(store)
        return WorkerProcess(self._config, store.address)


class RouterActor:
    """A router process: the router's event loop runs on a thread of its own."""

    def __init__(self, config: RouterConfig) -> None:
        log_to_ray(config.log_format, "router")
        self._started: Future[RouterAddresses | BatonError] = Future()
        self._loop = uvloop.new_event_loop()
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._run, args=(config,), name="router", daemon=True)
        self._thread.start()

    def ready(self) -> RouterAddresses | BatonError:
        """Where the router listens, or why it does not."""
        return self._started.result()

    def stop(self) -> None:
        """Lets requests under way finish for a moment, then ends the router."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join()

    def _run(self, config: RouterConfig) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve(config))
        except Exception as error:
            logger.exception("the router ended")
            if self._started.done():
                die()  # a dead router must not look alive: Ray starts another
            self._started.set_result(error if isinstance(error, BatonError) else InternalError(repr(error)))

    async def _serve(self, config: RouterConfig) -> None:
        async with run_router(config) as addresses:
            self._started.set_result(addresses)
            await self._stopping.wait()
