from collections.abc import Iterator

import pytest

from tests.router.state.redis_server import RedisServer, find_redis_server


@pytest.fixture(scope="session")
def redis_program() -> str:
    program = find_redis_server()
    if program is None:
        pytest.skip("no redis-server here, and PyPI has none for this machine; apt-get install redis-server")
    return program


@pytest.fixture(scope="session")
def shared_redis(redis_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(redis_program, tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def redis_server(shared_redis: RedisServer) -> RedisServer:
    """A server that runs and knows nothing. Tests leave it running."""
    shared_redis.forget()
    return shared_redis
