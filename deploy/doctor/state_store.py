"""The Redis server that several routers are to share."""

from collections.abc import Iterator

from core.errors import UnavailableError
from deploy.config import OWN_REDIS
from deploy.doctor.clocks import clock_finding
from deploy.doctor.finding import Finding, fail, ok, warn
from router.state.address import RedisAddress, parse_state
from router.state.redis_inspection import RedisServer, inspect_redis

MIN_RELEASE = (6, 2)
SLOW_S = 0.01  # of a round trip: it is on the path of every request once


def state_findings(setting: str) -> Iterator[Finding]:
    """All checks of what `--state` says; none of memory, nor of a cluster's own server, which lets nobody else in."""
    if setting != OWN_REDIS and (address := parse_state(setting)) is not None:
        yield from store_findings(address)


def store_findings(address: RedisAddress) -> Iterator[Finding]:
    """All checks of a server; it is only looked at."""
    try:
        server = inspect_redis(address)
    except UnavailableError as error:
        yield fail(
            "redis", str(address), error.message, "see that it runs, and takes the user and password of --state"
        )
        return
    yield from server_findings(str(address), server)


def server_findings(name: str, server: RedisServer) -> Iterator[Finding]:
    """What is to be said of a server that answers."""
    if server.release < MIN_RELEASE:
        yield fail("redis", name, f"version {server.version}", "install version 6.2 or newer")
    else:
        yield ok("redis", name, f"version {server.version}")
    round_trip = f"a round trip takes {server.round_trip_s * 1000:.2f} ms"
    if server.round_trip_s > SLOW_S:
        yield warn(
            "redis latency", name, round_trip, "run the server nearer to the routers: every request waits once"
        )
    else:
        yield ok("redis latency", name, round_trip)
    memory = f"maxmemory {server.max_memory_bytes or 'unlimited'}, {server.eviction}"
    if server.max_memory_bytes and server.eviction != "noeviction":
        yield warn(
            "redis memory",
            name,
            memory,
            "`CONFIG SET maxmemory-policy noeviction`: what it evicts, no router can resume",
        )
    else:
        yield ok("redis memory", name, memory)
    yield clock_finding(name, server.clock_skew_s)
