"""What `--state redis` does when something is in the way of its server."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from core.errors import ConfigError, UnavailableError
from deploy import own_redis as own_redis_module
from deploy.own_redis import LOOPBACK, OwnRedis, redis_program
from tests.deploy.test_own_redis import remember


@pytest.fixture
def program() -> str:
    try:
        return redis_program()
    except ConfigError as error:
        pytest.skip(error.message)


@contextlib.contextmanager
def stranger() -> Iterator[int]:
    """The port of a server of something else, which says a word to whoever connects."""

    def greet() -> None:
        with contextlib.suppress(OSError):
            while True:
                there, _ = listener.accept()
                with there:
                    there.sendall(b"+OK\r\n")

    with socket.create_server((LOOPBACK, 0)) as listener:
        thread = threading.Thread(target=greet)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_nothing_is_saved_to_disk(program: str, tmp_path: Path) -> None:
    server = OwnRedis(program, tmp_path)
    server.start()
    try:
        with redis.Redis.from_url(server.url) as client:
            settings = client.config_get("save") | client.config_get("appendonly")
    finally:
        server.stop()
    assert settings == {"save": "", "appendonly": "no"}
    assert {file.name for file in tmp_path.iterdir()} == {"redis.conf", "redis.log"}


def test_port_that_was_taken_meanwhile_is_left_to_who_has_it(program: str, tmp_path: Path) -> None:
    server = OwnRedis(program, tmp_path)
    with stranger() as server._port:
        taken = server.url
        server.start()
        try:
            assert server.url != taken
            assert asyncio.run(remember(server.url)) == "kept"
        finally:
            server.stop()


def test_server_that_cannot_start_again_says_why_and_keeps_its_port(program: str, tmp_path: Path) -> None:
    server = OwnRedis(program, tmp_path)
    server.start()
    server.stop()
    with stranger() as server._port:
        taken = server.url
        with pytest.raises(UnavailableError, match=rf"does not start: .*{server._port}"):
            server.look()
        assert server.url == taken


def test_program_that_ends_at_once_is_tried_once_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ports = iter([1, 2, 3])
    monkeypatch.setattr(own_redis_module, "free_port", lambda _host: next(ports))
    server = OwnRedis("/bin/false", tmp_path)
    with pytest.raises(UnavailableError, match="/bin/false does not start: it has logged nothing"):
        server.start()
    assert list(ports) == [3]
