"""The state of several routers in a Redis server: leases and small values."""

import uuid

from router.state.address import RedisAddress
from router.state.redis_connection import PREFIX, RedisConnection

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
    """A state store in one database of a Redis server. Each call is one round trip with a deadline.

    Args:
        address: which server and database; keys begin with `baton:`.
    """

    may_forget = True

    def __init__(self, address: RedisAddress) -> None:
        self._redis = RedisConnection(address)

    async def hold_lease(self, name: str, owner: str, ttl_s: float) -> str | None:
        """Takes or renews a lease; see `StateStore`."""
        ttl_ms = round(ttl_s * MS_PER_S)
        term: str | None = await self._redis.run(HOLD_LEASE, (_lease(name),), owner, uuid.uuid4().hex, ttl_ms)
        return term

    async def release_lease(self, name: str, owner: str) -> None:
        """Ends a lease of the owner's."""
        await self._redis.run(RELEASE_LEASE, (_lease(name),), owner)

    async def read(self, key: str) -> str | None:
        """The value of a key."""
        return await self._redis.get(_value(key))

    async def write(self, key: str, value: str) -> None:
        """Sets the value of a key."""
        await self._redis.set(_value(key), value)

    async def close(self) -> None:
        """Closes the connections."""
        await self._redis.close()


def _lease(name: str) -> str:
    return f"{PREFIX}lease:{name}"


def _value(key: str) -> str:
    return f"{PREFIX}value:{key}"
