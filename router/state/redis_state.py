"""The state of several routers in a Redis server, 6.2 or newer. The only one that routers talk to it by."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from core.errors import UnavailableError
from router.state.address import RedisAddress

PREFIX = "baton:"
# Of one round trip, connecting included: milliseconds where routers run. They ask again every second.
CALL_DEADLINE_S = 1.0
MS_PER_S = 1000

# Owner and term in one hash that expires as a whole. In a script, because between two commands somebody could come.
HOLD_LEASE = """
local owner = redis.call('HGET', KEYS[1], 'owner')
if owner and owner ~= ARGV[1] then
    return false
end
if not owner then
    redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'term', ARGV[2])
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return redis.call('HGET', KEYS[1], 'term')
"""
RELEASE_LEASE = """
if redis.call('HGET', KEYS[1], 'owner') == ARGV[1] then
    redis.call('DEL', KEYS[1])
end
"""


class RedisState:
    """A state store in one database of a Redis server. Connects when it is first asked, and again after a failure.

    A call is one round trip, at once repeated when the connection breaks, which does no harm. All of it has one
    deadline.

    Args:
        address: which server and database; keys begin with `baton:`.
    """

    may_forget = True

    def __init__(self, address: RedisAddress) -> None:
        self._address = address
        self._client = Redis(
            host=address.host,
            port=address.port,
            db=address.database,
            username=address.username,
            password=address.password,
            ssl=address.is_tls,
            socket_connect_timeout=CALL_DEADLINE_S,  # bounds what tidies up after our own deadline, too
            socket_timeout=CALL_DEADLINE_S,
            retry=Retry(NoBackoff(), 1),  # that the server has closed a connection is found out by using it
            decode_responses=True,
            encoding_errors="replace",  # of what somebody else wrote under our keys
            protocol=2,  # the newer one adds a greeting to every connection and nothing that is used here
            driver_info=None,  # what Redis 6.2 would refuse to be told
        )

    async def hold_lease(self, name: str, owner: str, ttl_s: float) -> str | None:
        """Takes or renews a lease; see `StateStore`."""
        ttl_ms = round(ttl_s * MS_PER_S)
        async with self._answering():
            term: str | None = await self._client.eval(HOLD_LEASE, 1, _lease(name), owner, uuid.uuid4().hex, ttl_ms)
        return term

    async def release_lease(self, name: str, owner: str) -> None:
        """Ends a lease of the owner's."""
        async with self._answering():
            await self._client.eval(RELEASE_LEASE, 1, _lease(name), owner)

    async def read(self, key: str) -> str | None:
        """The value of a key."""
        async with self._answering():
            value = await self._client.get(_value(key))
        assert not isinstance(value, bytes), "the client decodes answers"
        return value

    async def write(self, key: str, value: str) -> None:
        """Sets the value of a key."""
        async with self._answering():
            await self._client.set(_value(key), value)

    async def close(self) -> None:
        """Closes the connections."""
        with contextlib.suppress(UnavailableError):  # nobody is left to be told
            async with self._answering():
                await self._client.aclose()

    @contextlib.asynccontextmanager
    async def _answering(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(CALL_DEADLINE_S):
                yield
        except (RedisError, OSError) as error:  # TimeoutError is an OSError
            what = str(error) or f"no answer within {CALL_DEADLINE_S:g} s"
            raise UnavailableError(
                f"the state store {self._address} cannot be used: {what}; see that the server runs and takes "
                "the user and password of --state"
            ) from error


def _lease(name: str) -> str:
    return f"{PREFIX}lease:{name}"


def _value(key: str) -> str:
    return f"{PREFIX}value:{key}"
