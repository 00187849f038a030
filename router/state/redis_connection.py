"""Commands to one database of a Redis server, 6.2 or newer. The one that routers use."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from core.errors import UnavailableError
from router.state.address import RedisAddress

PREFIX = "baton:"  # of all our keys
# Of one round trip, connecting included: milliseconds where routers run. They ask again every second.
CALL_DEADLINE_S = 1.0
MAX_CONNECTIONS = 16  # each is busy for one round trip; more calls at once wait, inside their deadline


class RedisConnection:
    """Connects when it is first used, and again after a failure.

    A call is one round trip, at once repeated when the connection breaks: what is asked for must bear that. All of it
    has one deadline.

    Args:
        address: which server and database.
    """

    def __init__(self, address: RedisAddress) -> None:
        self._address = address
        self._turns = asyncio.Semaphore(MAX_CONNECTIONS)
        self._client = Redis(
            **client_options(address, CALL_DEADLINE_S),  # which bounds what tidies up after our own deadline, too
            retry=Retry(NoBackoff(), 1),  # that the server has closed a connection is found out by using it
            decode_responses=True,
            encoding_errors="replace",  # of what somebody else wrote under our keys
        )

    async def run(self, script: str, keys: tuple[str, ...], *arguments: str | int) -> Any:  # noqa: ANN401 - Lua's
        """What a Lua script returns.

        Raises:
            UnavailableError: the server could not be reached in time, or refused; whether it ran is not known.
        """
        async with self._answering():
            return await self._client.eval(script, len(keys), *keys, *arguments)

    async def get(self, key: str) -> str | None:
        """The value of a key; raises as `run`."""
        async with self._answering():
            value = await self._client.get(key)
        assert not isinstance(value, bytes), "the client decodes answers"
        return value

    async def set(self, key: str, value: str) -> None:
        """Sets the value of a key; raises as `run`."""
        async with self._answering():
            await self._client.set(key, value)

    async def close(self) -> None:
        """Closes the connections."""
        with contextlib.suppress(UnavailableError):  # nobody is left to be told
            async with self._answering():
                await self._client.aclose()

    @contextlib.asynccontextmanager
    async def _answering(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(CALL_DEADLINE_S), self._turns:
                yield
        except (RedisError, OSError) as error:  # TimeoutError is an OSError
            what = str(error) or f"no answer within {CALL_DEADLINE_S:g} s"
            raise UnavailableError(
                f"the state store {self._address} cannot be used: {what}; see that the server runs and takes "
                "the user and password of --state"
            ) from error


def client_options(address: RedisAddress, timeout_s: float) -> dict[str, Any]:
    """What every client of a server is made with, to connect and to wait for so many seconds."""
    return {
        "host": address.host,
        "port": address.port,
        "db": address.database,
        "username": address.username,
        "password": address.password,
        "ssl": address.is_tls,
        "socket_connect_timeout": timeout_s,
        "socket_timeout": timeout_s,
        "protocol": 2,  # the newer one adds a greeting to every connection and nothing that is used here
        "driver_info": None,  # what Redis 6.2 would refuse to be told
    }
