import re
from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import CheckpointError, ConfigError
from core.request import Role
from worker.config import WorkerConfig
from worker.engine_factory import load_engine
from worker.rank import pin_to_cores


@pytest.fixture
def config(tmp_path: Path) -> WorkerConfig:
    return WorkerConfig(name="prefill-0", role=Role.PREFILL, model_dir=tmp_path)


@pytest.mark.parametrize("name", ["block_size", "kv_cache_gb", "max_num_seqs", "max_num_batched_tokens"])
@pytest.mark.parametrize("value", [0, -1])
def test_number_not_positive_is_refused_by_name_and_value(config: WorkerConfig, name: str, value: int) -> None:
    with pytest.raises(ConfigError, match=f"{name} is {value}; it must be positive"):
        replace(config, **{name: value})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_memory_that_is_no_number_is_refused(config: WorkerConfig, value: float) -> None:
    with pytest.raises(ConfigError, match=f"kv_cache_gb is {value}"):
        replace(config, kv_cache_gb=value)


@pytest.mark.parametrize("value", [-0.5, float("nan"), float("inf")])
def test_host_memory_that_is_no_size_is_refused(config: WorkerConfig, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"kv_host_gb is {value}; it must be 0 \(none\) or a size"):
        replace(config, kv_host_gb=value)


def test_host_memory_without_prefix_caching_is_refused(config: WorkerConfig) -> None:
    with pytest.raises(ConfigError, match=r"kv_host_gb is 0\.5, but prefix caching is off"):
        replace(config, kv_host_gb=0.5, enable_prefix_caching=False)


def test_limit_too_short_for_a_prompt_and_an_answer_is_refused(config: WorkerConfig) -> None:
    with pytest.raises(ConfigError, match="max_model_len is 1; it must be at least 2"):
        replace(config, max_model_len=1)


def test_step_too_small_for_all_sequences_is_refused_with_both_values(config: WorkerConfig) -> None:
    assert replace(config, max_num_batched_tokens=64, max_num_seqs=64)
    with pytest.raises(ConfigError, match=r"max_num_batched_tokens is 63; .* max_num_seqs \(64\)"):
        replace(config, max_num_batched_tokens=63, max_num_seqs=64)


@pytest.mark.parametrize("name", ["kv_transport", "kv_direction", "kv_verify"])
def test_unknown_way_of_moving_kv_is_refused_with_those_there_are(config: WorkerConfig, name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} is 'sneakernet'; it must be one of "):
        replace(config, **{name: "sneakernet"})


@pytest.mark.parametrize("value", ["sm", "", "^tcp"])
def test_ucx_that_may_not_use_tcp_is_refused(config: WorkerConfig, value: str) -> None:
    assert replace(config, ucx_tls="sm,tcp").ucx_tls == "sm,tcp"
    with pytest.raises(ConfigError, match=f"UCX_TLS is '{re.escape(value)}'; it must contain 'tcp'"):
        replace(config, ucx_tls=value)


def test_ways_of_moving_kv_are_what_their_names_say(config: WorkerConfig) -> None:
    assert (config.kv_transports, config.digest_every) == (("nixl", "collective"), 0)
    chosen = replace(config, kv_transport="collective", kv_verify="sample")
    assert (chosen.kv_transports, chosen.digest_every) == (("collective",), 16)
    assert replace(config, kv_verify="always").digest_every == 1


def test_missing_model_folder_is_refused_with_the_remedy(config: WorkerConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere does not exist; pass --model DIR"):
        replace(config, model_dir=tmp_path / "nowhere")


def test_engine_has_as_many_blocks_as_fit_in_the_memory(config: WorkerConfig, tiny_model_dir: Path) -> None:
    config = replace(config, model_dir=tiny_model_dir, block_size=4, max_model_len=64)
    block_bytes = 4 * 4 * 2 * 2 * 16 * 4  # tokens, layers, keys and values, heads, elements, bytes
    engine = load_engine(replace(config, kv_cache_gb=100.5 * block_bytes / 2**30))
    assert engine.pool.layout.block_bytes == block_bytes
    assert engine.pool.num_blocks == 100
    assert engine.max_model_len == 64


def test_host_tier_has_as_many_blocks_as_fit_and_there_is_none_by_default(
    config: WorkerConfig, tiny_model_dir: Path
) -> None:
    config = replace(config, model_dir=tiny_model_dir, block_size=4, max_model_len=64, kv_cache_gb=1e-3)
    pool = load_engine(config).pool
    assert pool.host is None
    assert pool.chain("") is not None
    pool = load_engine(replace(config, kv_host_gb=2.5 * pool.layout.block_bytes / 2**30)).pool
    assert pool.host is not None
    pool.host.save([(pool.tensor[0], name) for name in (b"a", b"b", b"c")])
    assert pool.host.num_blocks == 2


def test_host_memory_too_small_for_a_block_is_refused(config: WorkerConfig, tiny_model_dir: Path) -> None:
    with pytest.raises(ConfigError, match=r"kv_host_gb is 1e-09, less than one KV block of 16384 bytes"):
        load_engine(replace(config, model_dir=tiny_model_dir, kv_host_gb=1e-9))


def test_prefix_caching_can_be_switched_off(config: WorkerConfig, tiny_model_dir: Path) -> None:
    config = replace(config, model_dir=tiny_model_dir, max_model_len=64, kv_cache_gb=1e-3)
    assert load_engine(replace(config, enable_prefix_caching=False)).pool.chain("") is None


def test_pool_too_small_for_one_sequence_is_refused(config: WorkerConfig, tiny_model_dir: Path) -> None:
    with pytest.raises(ConfigError, match="num_blocks is 1"):
        load_engine(replace(config, model_dir=tiny_model_dir, kv_cache_gb=2e-5))


def test_folder_without_a_model_is_refused(config: WorkerConfig) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_engine(config)


def test_core_that_does_not_exist_is_refused_by_number() -> None:
    with pytest.raises(ConfigError, match="4000"):
        pin_to_cores((4000,))
