import pytest

from core.errors import UnavailableError
from deploy.free_port import free_port
from router.state.address import parse_state
from router.state.redis_inspection import RedisServer as Found
from router.state.redis_inspection import inspect_redis
from tests.router.state.redis_server import RedisServer


def inspect(url: str) -> Found:
    address = parse_state(url)
    assert address is not None
    return inspect_redis(address)


def test_server_says_its_version_clock_and_memory(redis_server: RedisServer) -> None:
    found = inspect(redis_server.url)
    assert found.release >= (6, 2)
    assert 0 < found.round_trip_s < 1
    assert abs(found.clock_skew_s) < 1
    assert (found.max_memory_bytes, found.eviction) == (0, "noeviction")


def test_nobody_there_is_unavailable_and_names_the_address() -> None:
    port = free_port("127.0.0.1")
    with pytest.raises(UnavailableError, match=f"redis://127.0.0.1:{port}/0 cannot be used"):
        inspect(f"redis://:s3cret@127.0.0.1:{port}")


def test_wrong_password_is_unavailable_and_not_in_the_message(redis_server: RedisServer) -> None:
    with pytest.raises(UnavailableError) as caught:
        inspect(redis_server.url.replace("://", "://somebody:s3cret@"))
    assert "s3cret" not in caught.value.message
