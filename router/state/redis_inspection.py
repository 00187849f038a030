"""What a Redis server is like, for somebody who looks before routers rely on it. Changes nothing in it."""

import time
from dataclasses import dataclass
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from core.errors import UnavailableError
from router.state.address import RedisAddress
from router.state.redis_connection import client_options

DEADLINE_S = 2.0
NUM_PINGS = 5


@dataclass(frozen=True, slots=True)
class RedisServer:
    """A server as found.

    Attributes:
        version: such as `6.2.5`.
        round_trip_s: the fastest of a few pings, seconds.
        clock_skew_s: by how much its clock is ahead of this machine's.
        max_memory_bytes: what it may hold; 0 for no limit.
        eviction: what it does when that is reached; `noeviction` refuses writes.
    """

    version: str
    round_trip_s: float
    clock_skew_s: float
    max_memory_bytes: int
    eviction: str

    @property
    def release(self) -> tuple[int, ...]:
        """Major and minor version."""
        return tuple(int(part) for part in self.version.split(".")[:2])


def inspect_redis(address: RedisAddress) -> RedisServer:
    """Asks a server what it is.

    Raises:
        UnavailableError: it does not answer, or does not let this user in.
    """
    client = Redis(**client_options(address, DEADLINE_S))
    try:
        with client:
            return _inspect(client)
    except (RedisError, OSError) as error:
        raise UnavailableError(f"the state store {address} cannot be used: {error}") from error


def _inspect(client: Any) -> RedisServer:  # noqa: ANN401 - the client's types allow for its asynchronous twin
    round_trips_s = []
    for _ in range(NUM_PINGS):
        started_s = time.perf_counter()
        client.ping()
        round_trips_s.append(time.perf_counter() - started_s)
    asked_s = time.time()
    seconds, microseconds = client.time()
    now_s = (asked_s + time.time()) / 2
    info = client.info()
    return RedisServer(
        version=str(info["redis_version"]),
        round_trip_s=min(round_trips_s),
        clock_skew_s=seconds + microseconds / 1e6 - now_s,
        max_memory_bytes=int(info.get("maxmemory", 0)),
        eviction=str(info.get("maxmemory_policy", "")),
    )
