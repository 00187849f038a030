from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from core.request import Role
from tests.chaos.cluster import ChaosCluster, Slot
from tests.chaos.model import ChaosModel
from tests.chaos.pair import PAIR
from tests.router.state.redis_server import RedisServer, find_redis_server

FLEET = (
    Slot("prefill-0", Role.PREFILL, num_blocks=448),
    Slot("decode-0", Role.DECODE, num_blocks=448),
    Slot("decode-1", Role.DECODE, num_blocks=448),
)


@pytest.fixture(scope="session")
def chaos_model(tmp_path_factory: pytest.TempPathFactory) -> ChaosModel:
    return ChaosModel.write(tmp_path_factory.mktemp("chaos-model"))


@pytest.fixture(scope="session")
def chaos_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For logs, and for a cache that all processes share: only the first of each kind measures its steps."""
    return tmp_path_factory.mktemp("chaos")


@pytest.fixture(scope="session")
def tcp_cluster(chaos_folder: Path, chaos_model: ChaosModel) -> Iterator[ChaosCluster]:
    """One worker of each role. A write over TCP needs the target's help: to a stopped one it stays under way."""
    with ExitStack() as stack:
        yield stack.enter_context(
            ChaosCluster(chaos_folder, chaos_model.folder, chaos_model.block_bytes, PAIR, ucx_tls="tcp")
        )


@pytest.fixture(scope="session")
def shm_cluster(chaos_folder: Path, chaos_model: ChaosModel) -> Iterator[ChaosCluster]:
    """The same over whatever UCX chooses on one host."""
    with ExitStack() as stack:
        yield stack.enter_context(
            ChaosCluster(chaos_folder, chaos_model.folder, chaos_model.block_bytes, PAIR, ucx_tls="all")
        )


@pytest.fixture(scope="session")
def fleet_cluster(chaos_folder: Path, chaos_model: ChaosModel) -> Iterator[ChaosCluster]:
    """One prefill worker, and two decode workers that sequences can migrate between, with room for all at once."""
    with ExitStack() as stack:
        yield stack.enter_context(
            ChaosCluster(chaos_folder, chaos_model.folder, chaos_model.block_bytes, FLEET, ucx_tls="all")
        )


@pytest.fixture(scope="module")
def chaos_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Where routers of a cluster agree; one cluster at a time."""
    program = find_redis_server()
    if program is None:
        pytest.skip("no redis-server here, and PyPI has none for this machine; apt-get install redis-server")
    server = RedisServer(program, tmp_path_factory.mktemp("chaos-redis"))
    server.start()
    yield server
    server.stop()
