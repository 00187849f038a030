from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from core.errors import ConfigError
from deploy.bench.cluster_load import cluster_checks
from deploy.bench.engine_bench import EngineBench
from deploy.bench.engine_run import measure
from deploy.bench.growth import growth_checks, write_report
from deploy.bench.serve_bench import ServeBench
from deploy.bench.tiny_model import write_tiny_model
from deploy.commands.bench import bench_serve, parse_batches, parse_peers
from deploy.config import ServeConfig
from engine.config import ModelConfig
from router.text.tokenizer import TextCodec
from tests.engine.checkpoints import write_tiny_moe

GROWTH = {
    "batch": {1: 3.0, 2: 3.5},
    "context": {16_384: 10.0, 32_768: 19.0, 131_000: 80.0},
    "pool": {2048: 3.0, 262_144: 3.1},
}


def test_engine_run_measures_every_case(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    sizes = {"prefill": [24], "decode": [(1, 20), (3, 40)], "steps": 3, "kv_tokens": 400}
    model = {"model_dir": str(write_tiny_moe(tmp_path)), "dtype": "float32", "kernels": "auto", "threads": threads}
    run = measure({**model, **sizes})
    assert run["kernels"] == "torch"
    assert len(run["prefill"]) == 1
    assert len(run["decode"]) == 2
    assert all(step_s > 0 for step_s in run["prefill"] + run["decode"])


def test_tiny_model_is_the_one_of_the_targets(tmp_path: Path) -> None:
    model_dir = write_tiny_model(tmp_path / "tiny", num_experts=4)
    config = ModelConfig.from_dir(model_dir)
    assert config.moe is not None
    assert (config.hidden_size, config.num_layers, config.num_heads, config.num_kv_heads) == (512, 8, 8, 2)
    assert (config.moe.num_experts, config.moe.top_k, config.moe.intermediate_size) == (4, 4, 256)
    assert (config.vocab_size, config.max_position_embeddings, config.dtype) == (8192, 131_072, "bfloat16")
    codec = TextCodec.load(model_dir)
    assert codec.encode_chat([{"role": "user", "content": "w5 w17 w8190"}]) == [5, 17, 8190]
    written = (model_dir / "model.safetensors").stat().st_mtime_ns
    assert write_tiny_model(model_dir, num_experts=4) == model_dir
    assert (model_dir / "model.safetensors").stat().st_mtime_ns == written
    with safe_open(model_dir / "model.safetensors", "pt") as file:
        assert file.get_tensor("model.layers.1.mlp.experts.3.up_proj.weight").dtype is torch.bfloat16


def test_growth_checks_compare_the_two_longest_contexts_and_the_pools() -> None:
    doubled, pool = growth_checks(GROWTH)
    assert doubled["value"] == pytest.approx(80 / 19 / (131_000 / 32_768) * 2)
    assert doubled["holds"]
    assert pool["holds"]
    worse = {**GROWTH, "context": {16_384: 10.0, 32_768: 40.0}, "pool": {2048: 3.0, 262_144: 6.0}}
    assert not any(check["holds"] for check in growth_checks(worse))


def test_report_is_one_file_with_all_figures(tmp_path: Path) -> None:
    write_report(GROWTH, "Steps of tiny", tmp_path / "growth.html")
    page = (tmp_path / "growth.html").read_text(encoding="utf-8")
    assert "Steps of tiny" in page
    assert "19.00" in page
    assert "<script src=" not in page


def test_cluster_target_follows_a_peer_that_is_measured() -> None:
    load = {"output_tokens_per_s": 900.0, "ttft_ms_p50": 50.0, "tpot_ms_p50": 10.0}
    cluster = {"ready_s": 5.0, "together": load, "alone": load}
    holds = {check["name"]: check["holds"] for check in cluster_checks(cluster, {}, is_tiny=True)}
    assert holds == {
        "cluster_tokens_per_s": False,
        "cluster_ttft_ms_c1": True,
        "cluster_tpot_ms_c1": False,
        "cluster_ready_s": True,
    }
    slow = {"vllm": {"together": {"output_tokens_per_s": 300.0}, "alone": load}}
    ready, throughput = cluster_checks(cluster, slow, is_tiny=False)
    assert ready["name"] == "cluster_ready_s"
    assert throughput["holds"]
    assert len(cluster_checks(cluster, {}, is_tiny=False)) == 1


def test_options_are_checked() -> None:
    assert parse_batches("1, 8,32") == (1, 8, 32)
    assert parse_peers(["vllm=http://127.0.0.1:1/?a=b"]) == {"vllm": "http://127.0.0.1:1/?a=b"}
    for text in ("", "1,,2", "0", "a"):
        with pytest.raises(ConfigError, match="--batch"):
            parse_batches(text)
    for text in ("http://127.0.0.1:1", "vllm", "vllm=127.0.0.1"):
        with pytest.raises(ConfigError, match="NAME=URL"):
            parse_peers([text])


class ConfigSeenError(Exception):
    """Ends a measurement where its cluster would start."""


def test_clusters_of_measurements_keep_the_split_they_were_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[ServeConfig] = []

    def stop(*arguments: object, **_: object) -> None:
        seen.extend(each for each in arguments if isinstance(each, ServeConfig))
        raise ConfigSeenError

    ours = {"load_s": 1.0, "kernels": "torch", "decode_tokens_per_s": {1: 2.0}, "prefill_tokens_per_s": 2.0}
    monkeypatch.setattr(EngineBench, "_round", lambda *_: {"baton": ours, "transformers": ours})
    monkeypatch.setattr("deploy.bench.engine_bench.measure_cluster", stop)
    monkeypatch.setattr(ServeBench, "run", stop)
    engine = EngineBench(tmp_path, True, (1,), 8, "auto", "auto", 1, {})
    with pytest.raises(ConfigSeenError):
        engine.run(print, with_growth=False, with_cluster=True)
    with pytest.raises(ConfigSeenError):
        bench_serve(model=tmp_path)
    assert [config.auto_roles for config in seen] == [False, False]
