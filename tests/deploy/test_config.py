import math
from dataclasses import fields
from pathlib import Path

import pytest

from core.errors import ConfigError
from core.request import HALVES, Role
from deploy.config import POSITIVE, ServeConfig


def test_defaults_are_valid() -> None:
    ServeConfig()


def test_every_field_says_what_it_is() -> None:
    assert all(field.metadata["help"].endswith(".") for field in fields(ServeConfig))


@pytest.mark.parametrize("name", POSITIVE)
@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf])
def test_number_that_is_not_positive_is_named_by_its_flag(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"^--{name.replace('_', '-')} is {value}; it must be positive"):
        ServeConfig(**{name: value})


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_host_memory_that_is_no_size_is_named_by_its_flag(value: float) -> None:
    with pytest.raises(ConfigError, match=rf"^--kv-host-gb is {value}; it must be 0 \(none\) or a size in GiB"):
        ServeConfig(kv_host_gb=value)


@pytest.mark.parametrize("value", [-1.0, 0.01, 4.9, math.nan, math.inf])
def test_hang_timeout_that_is_no_time_or_kills_healthy_workers_is_named_by_its_flag(value: float) -> None:
    with pytest.raises(
        ConfigError, match=rf"^--hang-timeout-s is {value}; it must be 0 \(never kill\) or at least 5 s"
    ):
        ServeConfig(hang_timeout_s=value)


@pytest.mark.parametrize("value", [0, 5.0, 600.0])
def test_hang_timeout_that_leaves_workers_time_to_speak_is_taken(value: float) -> None:
    assert ServeConfig(hang_timeout_s=value).hang_timeout_s == value


def test_host_memory_without_prefix_caching_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^--kv-host-gb is 2\.0, but with --no-enable-prefix-caching nothing"):
        ServeConfig(kv_host_gb=2.0, enable_prefix_caching=False)


@pytest.mark.parametrize(
    ("name", "what"), [("prefill", "prefill worker"), ("decode", "decode worker"), ("routers", "router")]
)
@pytest.mark.parametrize("value", [0, -1])
def test_cluster_that_lacks_a_kind_of_process_is_refused(name: str, what: str, value: int) -> None:
    with pytest.raises(ConfigError, match=f"--{name} is {value}; at least one {what} is needed"):
        ServeConfig(**{name: value})


@pytest.mark.parametrize(
    ("ports", "flag"),
    [
        ({"port": -1}, "--port is -1"),
        ({"port": 65536}, "--port is 65536"),
        ({"grpc_port": 65536}, "--grpc-port is 65536"),
        ({"port": 65535}, "--grpc-port is 65536"),
        ({"port": 9000, "grpc_port": 9000}, "--grpc-port is 9000, as is --port"),
    ],
)
def test_ports_that_cannot_be_listened_on_are_named(ports: dict[str, int], flag: str) -> None:
    with pytest.raises(ConfigError, match=f"^{flag}"):
        ServeConfig(**ports)


@pytest.mark.parametrize(
    ("ports", "expected"),
    [({}, 8001), ({"port": 9000}, 9001), ({"port": 0}, 0), ({"port": 0, "grpc_port": 0}, 0), ({"grpc_port": 7}, 7)],
)
def test_grpc_port_is_the_next_unless_said(ports: dict[str, int], expected: int) -> None:
    assert ServeConfig(**ports).effective_grpc_port == expected


@pytest.mark.parametrize(("name", "value"), [("dtype", "int8"), ("device", "tpu"), ("device", "")])
def test_unknown_choice_is_named_with_those_there_are(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"^--{name} is '{value}'; it must be one of "):
        ServeConfig(**{name: value})


def test_model_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--model .*missing is not a folder"):
        ServeConfig(model=tmp_path / "missing")


def test_model_name_is_what_was_said_or_the_folders_or_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ServeConfig().model_name == "demo"
    folder = tmp_path / "ernie"
    folder.mkdir()
    assert ServeConfig(model=folder).model_name == "ernie"
    assert ServeConfig(model=folder, served_model_name="mine").model_name == "mine"
    monkeypatch.chdir(folder)
    assert ServeConfig(model=Path()).model_name == "ernie"


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"tensor_parallel_size": 0}, "--tensor-parallel-size is 0"),
        ({"expert_parallel_size": -1}, "--expert-parallel-size is -1"),
        ({"num_redundant_experts": 2}, "--num-redundant-experts is 2"),
        ({"tensor_parallel_size": 2, "expert_parallel_size": 4}, "--expert-parallel-size is 4 beside"),
    ],
)
def test_parallel_sizes_that_do_not_go_together_are_named(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        ServeConfig(**sizes)


def test_host_memory_for_workers_of_several_ranks_is_refused() -> None:
    assert ServeConfig(kv_host_gb=1.0).topology_of(Role.PREFILL).world_size == 1
    with pytest.raises(
        ConfigError, match=r"--kv-host-gb is 1.0, but workers of 2 ranks keep no KV in host memory yet"
    ):
        ServeConfig(kv_host_gb=1.0, tensor_parallel_size=2)


def test_decode_workers_are_as_the_prefill_workers_unless_said() -> None:
    alike, apart = (
        ServeConfig(tensor_parallel_size=2),
        ServeConfig(decode_tensor_parallel_size=2, decode_block_size=64),
    )
    assert alike.topology_of(Role.DECODE) == alike.topology_of(Role.PREFILL)
    assert [apart.topology_of(role).world_size for role in HALVES] == [1, 2]
    assert [apart.block_size_of(role) for role in HALVES] == [16, 64]
    assert (alike.num_ranks, apart.num_ranks) == (4, 3)


def test_sizes_of_decode_workers_that_do_not_go_together_are_named_by_their_flag() -> None:
    with pytest.raises(
        ConfigError, match=r"^with --decode-tensor-parallel-size 4: --expert-parallel-size is 2 beside"
    ):
        ServeConfig(tensor_parallel_size=2, expert_parallel_size=2, decode_tensor_parallel_size=4)


def test_block_sizes_of_which_neither_is_a_multiple_are_refused_with_both() -> None:
    with pytest.raises(ConfigError, match=r"^--decode-block-size is 24 and --block-size 16; one must be a multiple"):
        ServeConfig(decode_block_size=24)


@pytest.mark.parametrize("name", ["kv_transport", "kv_direction", "kv_verify"])
def test_unknown_way_of_moving_kv_is_named_with_those_there_are(name: str) -> None:
    with pytest.raises(ConfigError, match=f"^--{name.replace('_', '-')} is 'sneakernet'; it must be one of "):
        ServeConfig(**{name: "sneakernet"})


def test_ucx_that_may_not_use_tcp_is_refused_before_anything_starts() -> None:
    assert ServeConfig(ucx_tls="tcp,sm").ucx_tls == "tcp,sm"
    with pytest.raises(ConfigError, match="UCX_TLS is 'sm'; it must contain 'tcp'"):
        ServeConfig(ucx_tls="sm")


def test_state_is_memory_or_a_redis_url_and_its_password_is_not_shown() -> None:
    config = ServeConfig(state="redis://:s3cret@h:7/1")
    assert "s3cret" not in repr(config)
    with pytest.raises(ConfigError, match=r"^--state is a redis:// URL whose port is no number") as caught:
        ServeConfig(state="redis://h:s3cret")
    assert "s3cret" not in str(caught.value)


def test_file_of_keys_that_cannot_be_used_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the file of API keys .* cannot be read"):
        ServeConfig(api_keys_file=tmp_path / "none")
