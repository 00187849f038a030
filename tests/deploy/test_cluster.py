from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import ConfigError, UnavailableError, UnreachableError
from core.ids import WorkerId
from core.request import Role
from deploy import cluster as cluster_module
from deploy.all_routers import Silence
from deploy.certificate_maker import write_certificates
from deploy.cluster import (
    router_group,
    router_settings,
    run_cluster,
    wait_until_attached,
    worker_settings,
    worker_slots,
)
from deploy.config import ServeConfig
from deploy.fence_client import FenceClient
from deploy.security import TOKEN_VARIABLE
from rpc.security import TlsFiles
from tests.byte_tokenizer import write_byte_tokenizer
from tests.engine.checkpoints import write_tiny_moe
from tests.router.auth.keys import add_key


@pytest.fixture
def text_model_dir(tmp_path: Path) -> Path:
    write_byte_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text('{"max_position_embeddings": 512}', encoding="utf-8")
    return tmp_path


@pytest.fixture
def tiny_moe_dir(tmp_path: Path) -> Path:
    write_byte_tokenizer(tmp_path)
    return write_tiny_moe(tmp_path)


def test_routers_share_what_clients_use_and_have_a_cluster_port_each(text_model_dir: Path) -> None:
    config = ServeConfig(model=text_model_dir, host="0.0.0.0", routers=2, state="redis")  # noqa: S104 - not bound
    first, second = router_group(router_settings(config, text_model_dir), 2, "127.0.0.1")
    assert first.reuse_port
    assert (first.host, first.cluster_host) == ("0.0.0.0", "127.0.0.1")  # noqa: S104
    assert first.cluster_port != second.cluster_port
    assert replace(first, cluster_port=second.cluster_port) == second


def test_one_router_has_its_ports_to_itself_and_keeps_them(text_model_dir: Path) -> None:
    settings = router_settings(ServeConfig(model=text_model_dir, port=0), text_model_dir)
    (router,) = router_group(settings, 1, "127.0.0.1")
    assert not router.reuse_port
    assert 0 not in (router.port, router.grpc_port, router.cluster_port)


def test_cache_settings_reach_the_workers(text_model_dir: Path) -> None:
    config = ServeConfig(model=text_model_dir, kv_host_gb=1.5)
    worker = worker_settings(config, [router_settings(config, text_model_dir)], (Role.PREFILL, 0))
    assert (worker.kv_host_gb, worker.enable_prefix_caching) == (1.5, True)
    config = ServeConfig(model=text_model_dir, enable_prefix_caching=False)
    worker = worker_settings(config, [router_settings(config, text_model_dir)], (Role.DECODE, 0))
    assert (worker.kv_host_gb, worker.enable_prefix_caching) == (0.0, False)


def test_state_reaches_the_router(text_model_dir: Path) -> None:
    config = ServeConfig(model=text_model_dir, state="redis://h:7/1")
    assert router_settings(config, text_model_dir).state == "redis://h:7/1"


def test_link_to_the_api_keys_is_kept_for_it_may_lead_to_others_later(text_model_dir: Path) -> None:
    """As in a folder that Kubernetes mounts a secret at."""
    add_key(text_model_dir / "keys-1.json", "alice")
    link = text_model_dir / "keys.json"
    link.symlink_to("keys-1.json")
    assert router_settings(ServeConfig(api_keys_file=link), text_model_dir).api_keys_file == link


def test_what_is_to_be_told_reaches_the_router_and_the_format_of_logs_everybody(
    text_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATON_LOG_FORMAT", "json")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")
    config = ServeConfig(model=text_model_dir, metrics_port=9464, metrics_host="0.0.0.0")  # noqa: S104 - not bound here
    router = router_settings(config, text_model_dir)
    assert (router.metrics_host, router.metrics_port) == ("0.0.0.0", 9464)  # noqa: S104
    assert router.otlp_endpoint == "http://collector:4318"
    assert router.log_format == worker_settings(config, [router], (Role.PREFILL, 0)).log_format == "json"
    assert [each.metrics_port for each in router_group(router, 2, "127.0.0.1")] == [9464, 9465]


def test_one_random_token_reaches_the_router_and_all_workers(
    text_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    config = ServeConfig(model=text_model_dir)
    router = router_settings(config, text_model_dir)
    (token,) = router.cluster_security.tokens
    workers = [worker_settings(config, [router], slot) for slot in worker_slots(config)]
    assert [worker.security.tokens for worker in workers] == [(token,)] * 2
    assert token not in f"{router}{workers}"


def test_certificates_reach_the_router_and_the_workers(text_model_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "certs"
    write_certificates(folder, ["127.0.0.1"], days=1)
    config = ServeConfig(
        model=text_model_dir,
        tls_cert_file=folder / "cert.pem",
        tls_key_file=folder / "key.pem",
        cluster_tls_dir=folder,
    )
    router = router_settings(config, text_model_dir)
    assert router.tls == TlsFiles(folder / "cert.pem", folder / "key.pem")
    worker = worker_settings(config, [router], (Role.DECODE, 0))
    assert worker.security.tls == router.cluster_security.tls == TlsFiles.in_dir(folder)


def test_context_comes_from_the_checkpoint_unless_given(text_model_dir: Path) -> None:
    assert router_settings(ServeConfig(model=text_model_dir), text_model_dir).max_model_len == 512
    given = ServeConfig(model=text_model_dir, max_model_len=64)
    assert router_settings(given, text_model_dir).max_model_len == 64


def test_roles_alternate_so_that_neighbouring_cores_differ() -> None:
    slots = worker_slots(ServeConfig(prefill=2, decode=3))
    assert [role for role, _ in slots[:4]] == [Role.PREFILL, Role.DECODE, Role.PREFILL, Role.DECODE]
    assert slots[4] == (Role.DECODE, 2)


def test_transfer_settings_reach_the_workers(text_model_dir: Path) -> None:
    config = ServeConfig(
        model=text_model_dir,
        kv_transport="collective",
        kv_direction="pull",
        kv_verify="always",
        nixl_backend="POSIX",
        ucx_tls="tcp",
    )
    worker = worker_settings(config, [router_settings(config, text_model_dir)], (Role.DECODE, 0))
    assert (worker.kv_transports, worker.kv_direction, worker.digest_every) == (("collective",), "pull", 1)
    assert (worker.nixl_backend, worker.ucx_tls) == ("POSIX", "tcp")


def test_size_of_decode_workers_that_does_not_fit_the_model_is_refused_by_its_flag(tiny_moe_dir: Path) -> None:
    config = ServeConfig(model=tiny_moe_dir, port=0, decode_tensor_parallel_size=3)
    with (
        pytest.raises(ConfigError, match=r"^with --decode-tensor-parallel-size 3: .*which does not divide num_att"),
        run_cluster(config, tiny_moe_dir, pytest.fail),
    ):
        pass


def test_sizes_that_do_not_fit_the_model_are_refused_before_anything_starts(tiny_moe_dir: Path) -> None:
    config = ServeConfig(model=tiny_moe_dir, port=0, expert_parallel_size=3)
    with (
        pytest.raises(ConfigError, match=r"--expert-parallel-size is 3, which does not divide moe_num_experts \(8\)"),
        run_cluster(config, tiny_moe_dir, pytest.fail),
    ):
        pass


def test_with_api_keys_the_cluster_has_one_of_its_own(text_model_dir: Path, tmp_path: Path) -> None:
    add_key(tmp_path / "keys.json", "alice")
    config = ServeConfig(model=text_model_dir, api_keys_file=tmp_path / "keys.json")
    first, second = (router_settings(config, text_model_dir) for _ in range(2))
    assert first.api_keys_file == tmp_path / "keys.json"
    assert first.console_key is not None
    assert first.console_key != second.console_key
    assert first.console_key not in repr(first)
    without = router_settings(ServeConfig(model=text_model_dir), text_model_dir)
    assert (without.api_keys_file, without.console_key) == (None, None)


ATTACHED = {WorkerId(name, 1): Silence(0.0, ()) for name in ("decode-0", "prefill-0")}


def test_router_that_misses_a_call_while_all_start_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [UnreachableError("no answer in time"), UnavailableError("it starts"), {}, ATTACHED]

    def silences(_router: FenceClient) -> dict[WorkerId, Silence]:
        answer = answers.pop(0)
        if isinstance(answer, UnavailableError):
            raise answer
        return answer

    monkeypatch.setattr(cluster_module, "READY_POLL_S", 0.0)
    monkeypatch.setattr(FenceClient, "silences", silences)
    wait_until_attached([FenceClient("router:1")], ServeConfig())
    assert not answers


@pytest.mark.parametrize("is_there", [False, True])
def test_router_without_all_workers_in_time_ends_the_start(monkeypatch: pytest.MonkeyPatch, is_there: bool) -> None:
    def silences(_router: FenceClient) -> dict[WorkerId, Silence]:
        if not is_there:
            raise UnreachableError("no answer in time")
        return {}

    monkeypatch.setattr(cluster_module, "READY_TIMEOUT_S", 0.0)
    monkeypatch.setattr(FenceClient, "silences", silences)
    message = "router:1 attached to none within" if is_there else "no answer in time"
    with pytest.raises(UnavailableError, match=message):
        wait_until_attached([FenceClient("router:1")], ServeConfig())
