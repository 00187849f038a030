import asyncio
import threading

import pytest

from core.errors import UnavailableError
from deploy.load.daemon_call import call_in_daemon

WAIT_S = 30.0


async def test_result_comes_from_another_thread() -> None:
    assert await call_in_daemon(threading.get_ident) != threading.get_ident()


async def test_error_is_raised_where_it_is_awaited() -> None:
    def fail() -> None:
        raise UnavailableError("gone")

    with pytest.raises(UnavailableError, match="gone"):
        await call_in_daemon(fail)


def test_loop_ends_while_a_call_is_under_way() -> None:
    release, called = threading.Event(), threading.Event()

    def block() -> None:
        release.wait(WAIT_S)
        called.set()

    async def leave() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(call_in_daemon(block), 0.01)

    asyncio.run(leave())
    release.set()
    assert called.wait(WAIT_S)
