"""A cluster with TLS everywhere and a token of its own: who gets in, what listens where, and where secrets show."""

import json
import ssl
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import psutil
import pytest

from deploy.certificate_maker import write_certificates
from deploy.run_record import find_cluster
from rpc.channels import open_sync_channel
from rpc.security import OPEN, RpcSecurity, TlsFiles
from tests.cluster.conftest import free_ports
from tests.cluster.served import WAIT_S, ServedCluster, baton, serve
from tests.processes import of_living

pytestmark = pytest.mark.cluster

TOKEN = "only-this-cluster-has-it"  # noqa: S105
LOOPBACK = {"127.0.0.1", "::ffff:127.0.0.1"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    folder = tmp_path_factory.mktemp("secured") / "certs"
    write_certificates(folder, ["127.0.0.1"], days=1)
    (folder / "token").write_text(TOKEN, encoding="utf-8")
    return TlsFiles.in_dir(folder)


@pytest.fixture(scope="module")
def cluster(tiny_text_model_dir: Path, files: TlsFiles) -> Iterator[ServedCluster]:
    assert files.ca is not None
    flags = {
        "--model": tiny_text_model_dir,
        "--served-model-name": "tiny",
        "--kv-cache-gb": 0.02,
        "--ask": "",
        "--tls-cert-file": files.cert,
        "--tls-key-file": files.key,
        "--tls-client-ca-file": files.ca,
        "--tls-ca-file": files.ca,
        "--cluster-tls-dir": files.ca.parent,
        "--cluster-token-file": files.ca.parent / "token",
    }
    cluster = serve(free_ports(), *(str(word) for pair in flags.items() for word in pair))
    yield cluster
    cluster.interrupt()
    cluster.process.wait(WAIT_S)
    cluster.close()


def test_commands_and_clients_with_a_certificate_are_served(cluster: ServedCluster, files: TlsFiles) -> None:
    assert len(cluster.status()["workers"]) == 2
    said = baton("chat", "--url", f"https://127.0.0.1:{cluster.port}", "-m", "Hi", "--max-tokens", "3")
    assert said.returncode == 0, said.stderr
    context = ssl.create_default_context(cafile=files.ca)
    with httpx.Client(verify=context, trust_env=False, timeout=WAIT_S) as client, pytest.raises(httpx.HTTPError):
        client.get(f"https://127.0.0.1:{cluster.port}/health")


@pytest.mark.parametrize(
    ("with_tls", "code"), [(False, grpc.StatusCode.UNAVAILABLE), (True, grpc.StatusCode.UNAUTHENTICATED)]
)
def test_stranger_does_not_attach_to_a_worker(
    cluster: ServedCluster, files: TlsFiles, with_tls: bool, code: grpc.StatusCode
) -> None:
    address = cluster.status()["workers"][0]["hello"]["endpoint"]["address"]
    with open_sync_channel(address, RpcSecurity(files) if with_tls else OPEN) as channel:
        call = channel.stream_stream("/baton.v1.WorkerService/Attach")(iter(()), timeout=WAIT_S)
        assert call.code() is code


def test_workers_and_routers_listen_on_loopback_but_for_ray(cluster: ServedCluster) -> None:
    """Each process of Ray's has one port on all interfaces, which wants Ray's token."""
    names = of_living(psutil.Process(cluster.process.pid).children(recursive=True), psutil.Process.name)
    actors = [process for process, name in names.items() if name.startswith(("ray::RankActor", "ray::RouterActo"))]
    assert len(actors) == 3
    for process in actors:
        listening = [c.laddr.ip for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
        assert [ip for ip in listening if ip not in LOOPBACK] == ["::"], process


def test_token_is_in_no_command_line_and_in_no_log(cluster: ServedCluster) -> None:
    processes = [psutil.Process(cluster.process.pid), *psutil.Process(cluster.process.pid).children(recursive=True)]
    command_lines = of_living(processes, psutil.Process.cmdline)
    assert len(command_lines) > 3, "Ray, a router and workers run"
    assert not [process for process, line in command_lines.items() if TOKEN in " ".join(line)]
    record = find_cluster(cluster.port)
    assert TOKEN not in json.dumps(record.path.read_text(encoding="utf-8"))
    logs = [path for path in Path(record.log_dir).rglob("*") if path.is_file()]
    assert logs
    assert not [path for path in logs if TOKEN.encode() in path.read_bytes()]
