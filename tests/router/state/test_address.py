import pytest

from core.clock import ManualClock
from core.errors import ConfigError
from router.state.address import RedisAddress, parse_state
from router.state.memory import MemoryState
from router.state.open_state import open_state
from router.state.redis_state import RedisState


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://h", RedisAddress("h")),
        ("redis://h/", RedisAddress("h")),
        ("redis://h:1/3", RedisAddress("h", 1, 3)),
        ("redis://:p%40%2F@h", RedisAddress("h", 6379, 0, None, "p@/")),
        ("redis://u:p@[::1]:7/2", RedisAddress("::1", 7, 2, "u", "p")),
        ("rediss://h", RedisAddress("h", is_tls=True)),
    ],
)
def test_url_is_taken_apart(url: str, address: RedisAddress) -> None:
    assert parse_state(url) == address


def test_memory_is_no_address() -> None:
    assert parse_state("memory") is None


@pytest.mark.parametrize("url", ["redis://h:6379/0", "rediss://[::1]:7/2"])
def test_address_is_written_as_a_url(url: str) -> None:
    assert str(parse_state(url)) == url


def test_user_and_password_are_not_written() -> None:
    address = parse_state("redis://someone:s3cret@h:7/2")
    assert str(address) == "redis://h:7/2"
    assert "s3cret" not in repr(address)


@pytest.mark.parametrize(
    ("setting", "shown"),
    [
        ("", " ''"),
        ("Memory", " 'Memory'"),
        ("redis", " 'redis'"),
        ("http://u:s3cret@h", " 'http'"),
        ("redis:/:s3cret@h", ""),
        (":s3cret@h:6379", ""),
    ],
)
def test_other_store_is_refused_with_what_there_is(setting: str, shown: str) -> None:
    with pytest.raises(
        ConfigError, match=f"^--state{shown} is no store of state; pass memory, or redis://"
    ) as caught:
        parse_state(setting)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("redis://", "host"),
        ("redis://:s3cret@", "host"),
        ("redis://:s3cret@[h", "host"),
        ("redis://h:0", "port"),
        ("redis://h:65536", "port"),
        ("redis://:s3cret", "host"),
        ("redis://h:s3cret", "port"),
        ("redis://:s3/cret@h", "host"),
        ("redis://u:s3/cret@h", "port"),
        ("redis://u:1/s3cret@h", "database"),
        ("redis://h/s3cret", "database"),
        ("redis://h/-1", "database"),
        ("redis://h?password=s3cret", "query"),
        ("redis://:s3#cret@h", "fragment"),
    ],
)
def test_part_that_is_wrong_is_named_and_no_value_is_shown(url: str, part: str) -> None:
    with pytest.raises(ConfigError, match=rf"^--state is a redis:// URL whose .*{part}.*; pass memory") as caught:
        parse_state(url)
    assert "s3" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


async def test_store_is_what_the_setting_says() -> None:
    assert isinstance(open_state("memory", ManualClock()), MemoryState)
    store = open_state("redis://h", ManualClock())
    assert isinstance(store, RedisState)
    await store.close()
