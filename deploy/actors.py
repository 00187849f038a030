"""The bodies of the Ray actors: one process each, around a worker or a router. They only start and stop it.

Plain classes without Ray, so that `deploy.ray_cluster` is the only module that calls it. A start that fails is kept
and told by `ready`, so that its cause arrives as the typed error it is.
"""

import asyncio
import logging
import os
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING

import uvloop

from core.crash import die
from core.errors import BatonError, InternalError
from core.ids import WorkerEndpoint
from router.config import RouterConfig
from router.process import RouterAddresses, run_router
from worker.config import WorkerConfig

if TYPE_CHECKING:
    from worker.process import WorkerProcess

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

logger = logging.getLogger(__name__)


def configure_logging() -> None:
    """Logs to stderr, which Ray keeps in its session folder; `BATON_LOG_LEVEL` sets the level."""
    logging.basicConfig(level=os.environ.get("BATON_LOG_LEVEL", "INFO").upper(), format=LOG_FORMAT, force=True)


class WorkerActor:
    """A worker process."""

    def __init__(self, config: WorkerConfig) -> None:
        configure_logging()
        self._outcome = start_worker(config)

    def ready(self) -> WorkerEndpoint | BatonError:
        """Where the worker listens, or why it does not."""
        return self._outcome if isinstance(self._outcome, BatonError) else self._outcome.endpoint

    def stop(self) -> None:
        """Ends the worker; the process is Ray's to end."""
        if not isinstance(self._outcome, BatonError):
            self._outcome.stop()


def start_worker(config: WorkerConfig) -> "WorkerProcess | BatonError":
    """A running worker, or what kept it from starting."""
    from worker.process import WorkerProcess  # noqa: PLC0415 - torch is imported in worker processes only

    try:
        return WorkerProcess(config)
    except BatonError as error:
        return error


class RouterActor:
    """A router process: the router's event loop runs on a thread of its own."""

    def __init__(self, config: RouterConfig) -> None:
        configure_logging()
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
