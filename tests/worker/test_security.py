"""Workers that know each other by a token and by certificates; one of them has two ranks."""

import asyncio
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from baton.v1 import handoff_pb2, prefix_pb2, rank_pb2, worker_pb2

from core.errors import ERROR_CODE_KEY, ClusterTokenError
from core.request import Role
from deploy.status_client import get_status
from engine.parallel.topology import ShardTopology
from router.config import RouterConfig
from router.process import run_router
from rpc.channels import open_channel, open_sync_channel
from rpc.security import OPEN, RpcSecurity, TlsFiles
from tests.oracles import greedy_tokens
from tests.router.http.serving import tiny_model_dir as text_model_dir  # noqa: F401 - a fixture
from tests.rpc.certs import new_authority
from tests.worker.conftest import BLOCK_BYTES
from tests.worker.loops import greedy
from tests.worker.routers import TIMEOUT_S, is_free, look
from tests.worker.test_group import Group
from tests.worker.test_handoff_service import prompt_of, serve
from worker.config import WorkerConfig
from worker.process import WorkerProcess

TOKEN = "secret-of-the-cluster"  # noqa: S105
SERVICES = {
    "worker": (worker_pb2, handoff_pb2, prefix_pb2),
    "rank": (rank_pb2,),
}
METHODS = [
    (where, f"/{service.full_name}/{method.name}")
    for where, modules in SERVICES.items()
    for module in modules
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]


@pytest.fixture(scope="module")
def security(tmp_path_factory: pytest.TempPathFactory) -> RpcSecurity:
    authority = new_authority(tmp_path_factory.mktemp("security") / "ca")
    return RpcSecurity(authority.files(), (TOKEN,))


@pytest.fixture(scope="module")
def config(tiny_model_dir: Path, security: RpcSecurity) -> WorkerConfig:
    return WorkerConfig(
        name="prefill-s",
        role=Role.PREFILL,
        model_dir=tiny_model_dir,
        block_size=4,
        kv_cache_gb=256 * BLOCK_BYTES / 2**30,
        max_model_len=128,
        max_num_seqs=4,
        max_num_batched_tokens=16,
        security=security,
    )


@pytest.fixture(scope="module")
def prefill(config: WorkerConfig) -> Iterator[WorkerProcess]:
    process = WorkerProcess(config)
    yield process
    process.stop()


@pytest.fixture(scope="module")
def decode(config: WorkerConfig) -> Iterator[Group]:
    group = Group(replace(config, name="decode-s", role=Role.DECODE, topology=ShardTopology(2, 1)))
    yield group
    group.stop()


def test_answers_come_over_secured_channels(prefill: WorkerProcess, decode: Group) -> None:
    work = replace(greedy("secured", prompt_of(50, 1), 8), prefill=prefill.endpoint, decode=decode.leader.endpoint)
    answers = serve(prefill, decode.leader, [work])
    assert answers["secured"] == greedy_tokens(prefill.config.model_dir, work.prompt, work.max_new_tokens)


def test_every_service_of_a_worker_is_tried() -> None:
    assert {method.split("/")[1] for _, method in METHODS} == {
        f"baton.v1.{name}Service" for name in ("Worker", "Handoff", "Link", "Prefix", "Rank")
    }


@pytest.mark.parametrize(("where", "method"), METHODS)
def test_call_without_the_token_is_refused_by_every_service(
    decode: Group, security: RpcSecurity, where: str, method: str
) -> None:
    leader = decode.leader
    address = leader.endpoint.address if where == "worker" else leader._mover._movers[1]._address
    with open_sync_channel(address, replace(security, tokens=())) as channel:
        call = channel.stream_stream(method)(iter(()), timeout=TIMEOUT_S)
        assert call.code() is grpc.StatusCode.UNAUTHENTICATED
        assert dict(call.trailing_metadata())[ERROR_CODE_KEY] == ClusterTokenError.code
    assert look(leader, is_free)


@pytest.mark.parametrize("client", ["plain text", "no certificate"])
def test_call_without_a_certificate_reaches_nobody(decode: Group, security: RpcSecurity, client: str) -> None:
    assert security.tls is not None
    caller = OPEN if client == "plain text" else RpcSecurity(TlsFiles(ca=security.tls.ca), security.tokens)
    with open_sync_channel(decode.leader.endpoint.address, caller) as channel:
        call = channel.stream_stream(METHODS[0][1])(iter(()), timeout=TIMEOUT_S)
        assert call.code() is grpc.StatusCode.UNAVAILABLE


async def test_router_and_worker_find_each_other_with_the_token_and_not_with_another(
    config: WorkerConfig,
    text_model_dir: Path,  # noqa: F811 - the fixture
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    security = RpcSecurity(tokens=(TOKEN,))
    router = RouterConfig(text_model_dir, "m", port=0, grpc_port=0, max_model_len=128, cluster_security=security)
    async with run_router(router) as addresses:
        routers = (f"127.0.0.1:{addresses.cluster_port}",)
        friend = replace(config, name="friend", routers=routers, security=security)
        stranger = replace(config, name="stranger", routers=routers, security=RpcSecurity(tokens=("x" * 20,)))
        with ThreadPoolExecutor() as threads:
            started = [asyncio.wrap_future(threads.submit(WorkerProcess, each)) for each in (friend, stranger)]
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    while not (await asyncio.to_thread(names_of, routers[0], security) and _refusals(caplog)):
                        pass
            finally:
                for process in await asyncio.gather(*started):
                    await asyncio.to_thread(process.stop)
    attached = [line.split("@")[0] for line in caplog.messages if "attached as" in line]
    assert attached == ["worker friend"]
    assert TOKEN not in caplog.text


def names_of(cluster_address: str, security: RpcSecurity) -> list[str]:
    """Workers that a router is attached to."""
    return [worker.hello.endpoint.worker.name for worker in get_status(cluster_address, security).workers]


def _refusals(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [line for line in caplog.messages if line.startswith("the router refuses this worker: this port is for")]


@pytest.mark.parametrize("method", ["MembershipService/RegisterWorker", "ControlService/GetStatus"])
async def test_cluster_port_of_a_router_refuses_who_has_no_token(
    text_model_dir: Path,  # noqa: F811 - the fixture
    method: str,
) -> None:
    security = RpcSecurity(tokens=(TOKEN,))
    router = RouterConfig(text_model_dir, "m", port=0, grpc_port=0, max_model_len=128, cluster_security=security)
    async with run_router(router) as addresses:
        async with open_channel(f"127.0.0.1:{addresses.cluster_port}") as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary(f"/baton.v1.{method}")(b"", timeout=TIMEOUT_S)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        async with open_channel(f"127.0.0.1:{addresses.grpc_port}") as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary("/baton.v1.MembershipService/RegisterWorker")(b"", timeout=TIMEOUT_S)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
