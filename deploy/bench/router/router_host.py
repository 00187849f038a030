"""A router in a process of its own, started as an actor starts it, that can be profiled."""

import asyncio
import cProfile
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path
from typing import Any

from core.errors import BatonError
from deploy.actors import log_to_ray, serve_router
from deploy.bench.remote import IsCalled
from deploy.bench.router.event_loop import LoopThread
from router.config import RouterConfig
from router.departure import RouterDeparture
from router.process import RouterAddresses


class RouterHost:
    """Serves from construction until `close`.

    Raises:
        BatonError: on construction, when the router cannot start.
    """

    def __init__(self, config: RouterConfig, _is_called: IsCalled) -> None:
        log_to_ray(config.log_format, "router")
        self._thread = LoopThread()
        self._departure = RouterDeparture(config.drain_timeout_s)
        self._profile: cProfile.Profile | None = None
        started: Future[RouterAddresses | BatonError] = Future()
        serving = serve_router(config, self._departure, started)
        self._serving = asyncio.run_coroutine_threadsafe(serving, self._thread.loop)
        either: list[Future[Any]] = [started, self._serving]
        wait(either, return_when=FIRST_COMPLETED)
        if self._serving.done():
            self._serving.result()
        addresses = started.result()
        assert isinstance(addresses, RouterAddresses), "a start that fails ends the serving, and was raised"
        self._addresses = addresses

    def addresses(self) -> RouterAddresses:
        """Where it listens."""
        return self._addresses

    def start_profile(self) -> None:
        """Profiles what runs on the event loop from now on, which makes it half as fast."""
        self._thread.call(self._start_profile())

    def end_profile(self, path: Path) -> None:
        """Writes what was profiled, for `pstats`."""
        self._thread.call(self._end_profile(path))

    def close(self) -> None:
        """Ends the router."""
        self._thread.loop.call_soon_threadsafe(self._departure.order, 0.0)
        self._serving.result()
        self._thread.close()

    async def _start_profile(self) -> None:
        self._profile = cProfile.Profile()
        self._profile.enable()

    async def _end_profile(self, path: Path) -> None:
        assert self._profile is not None, "start_profile() comes first"
        self._profile.disable()
        self._profile.dump_stats(path)
        self._profile = None
