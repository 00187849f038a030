import os
from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import ConfigError
from core.request import Role
from deploy.certificate_maker import write_certificates
from deploy.cluster import group_settings, router_settings, run_cluster, worker_settings, worker_slots
from deploy.config import ServeConfig
from deploy.security import TOKEN_VARIABLE
from engine.parallel.topology import ShardTopology
from rpc.security import TlsFiles
from tests.byte_tokenizer import write_byte_tokenizer
from tests.engine.checkpoints import write_tiny_moe


@pytest.fixture
def text_model_dir(tmp_path: Path) -> Path:
    write_byte_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text('{"max_position_embeddings": 512}', encoding="utf-8")
    return tmp_path


@pytest.fixture
def tiny_moe_dir(tmp_path: Path) -> Path:
    write_byte_tokenizer(tmp_path)
    return write_tiny_moe(tmp_path)


def test_workers_stay_on_loopback_when_the_router_listens_everywhere(text_model_dir: Path) -> None:
    config = ServeConfig(model=text_model_dir, host="0.0.0.0", port=8000)  # noqa: S104 - nothing is bound here
    router = router_settings(config, text_model_dir)
    worker = worker_settings(config, router, (Role.PREFILL, 0))
    assert (router.host, router.cluster_host) == ("0.0.0.0", "127.0.0.1")  # noqa: S104
    assert (worker.host, worker.routers) == ("127.0.0.1", (f"127.0.0.1:{router.cluster_port}",))


def test_cache_settings_reach_the_workers(text_model_dir: Path) -> None:
    config = ServeConfig(model=text_model_dir, kv_host_gb=1.5)
    worker = worker_settings(config, router_settings(config, text_model_dir), (Role.PREFILL, 0))
    assert (worker.kv_host_gb, worker.enable_prefix_caching) == (1.5, True)
    config = ServeConfig(model=text_model_dir, enable_prefix_caching=False)
    worker = worker_settings(config, router_settings(config, text_model_dir), (Role.DECODE, 0))
    assert (worker.kv_host_gb, worker.enable_prefix_caching) == (0.0, False)


def test_state_reaches_the_router(text_model_dir: Path) -> None:
    config = ServeConfig(model=text_model_dir, state="redis://h:7/1")
    assert router_settings(config, text_model_dir).state == "redis://h:7/1"


def test_one_random_token_reaches_the_router_and_all_workers(
    text_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    config = ServeConfig(model=text_model_dir)
    router = router_settings(config, text_model_dir)
    (token,) = router.cluster_security.tokens
    workers = [worker_settings(config, router, slot) for slot in worker_slots(config)]
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
    worker = worker_settings(config, router, (Role.DECODE, 0))
    assert worker.security.tls == router.cluster_security.tls == TlsFiles.in_dir(folder)


def test_context_comes_from_the_checkpoint_unless_given(text_model_dir: Path) -> None:
    assert router_settings(ServeConfig(model=text_model_dir), text_model_dir).max_model_len == 512
    given = ServeConfig(model=text_model_dir, max_model_len=64)
    assert router_settings(given, text_model_dir).max_model_len == 64


def test_roles_alternate_so_that_neighbouring_cores_differ() -> None:
    slots = worker_slots(ServeConfig(prefill=2, decode=3))
    assert [role for role, _ in slots[:4]] == [Role.PREFILL, Role.DECODE, Role.PREFILL, Role.DECODE]
    assert slots[4] == (Role.DECODE, 2)


def test_ranks_of_a_worker_differ_in_number_and_cores_only(
    text_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)))
    config = ServeConfig(model=text_model_dir, tensor_parallel_size=2, expert_parallel_size=2)
    worker = worker_settings(config, router_settings(config, text_model_dir), (Role.DECODE, 0))
    _, ranks = group_settings(config, [replace(worker, name="prefill-0", role=Role.PREFILL), worker])
    assert [(rank.rank, rank.cpu_ids) for rank in ranks] == [(0, (4, 5)), (1, (6, 7))]
    assert [rank.rank_name for rank in ranks] == ["rank 0 of decode-0", "rank 1 of decode-0"]
    assert {replace(rank, rank=0, cpu_ids=()) for rank in ranks} == {worker}
    assert worker.topology == ShardTopology(2, 2)


def test_decode_workers_may_be_divided_otherwise_and_every_rank_has_its_cores(
    text_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(5)))
    config = ServeConfig(
        model=text_model_dir, prefill=2, tensor_parallel_size=2, decode_tensor_parallel_size=1, decode_block_size=64
    )
    router = router_settings(config, text_model_dir)
    groups = group_settings(config, [worker_settings(config, router, slot) for slot in worker_slots(config)])
    assert [[rank.name for rank in group] for group in groups] == [["prefill-0"] * 2, ["decode-0"], ["prefill-1"] * 2]
    assert [rank.cpu_ids for group in groups for rank in group] == [(0,), (1,), (2,), (3,), (4,)]
    assert [(group[0].topology.world_size, group[0].block_size) for group in groups] == [(2, 16), (1, 64), (2, 16)]


def test_transfer_settings_reach_the_workers(text_model_dir: Path) -> None:
    config = ServeConfig(
        model=text_model_dir,
        kv_transport="collective",
        kv_direction="pull",
        kv_verify="always",
        nixl_backend="POSIX",
        ucx_tls="tcp",
    )
    worker = worker_settings(config, router_settings(config, text_model_dir), (Role.DECODE, 0))
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
