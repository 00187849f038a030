import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Ernie4_5_MoeConfig, Ernie4_5_MoeForCausalLM
from typer.testing import CliRunner

from deploy import demo_model
from deploy.commands.model import model_app
from deploy.demo_record import write_demo_record
from deploy.model_summary import summarize_model
from tests.router.text.small_tokenizers import byte_level

RUNNER = CliRunner()


@pytest.fixture
def small_model_dir(tmp_path: Path) -> Path:
    """A model as transformers saves it: 3 layers of which 2 have 4 experts, top-2, one shared expert."""
    config = Ernie4_5_MoeConfig(
        vocab_size=257,
        hidden_size=16,
        intermediate_size=24,
        moe_intermediate_size=8,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        moe_num_experts=4,
        moe_k=2,
        moe_num_shared_experts=1,
        max_position_embeddings=64,
    )
    model_dir = tmp_path / "small"
    Ernie4_5_MoeForCausalLM(config).to(torch.bfloat16).save_pretrained(model_dir, max_shard_size="20KB")
    byte_level().save(str(model_dir / "tokenizer.json"))
    return model_dir


def inspect_json(model_dir: Path) -> dict[str, Any]:
    result = RUNNER.invoke(model_app, ["inspect", str(model_dir), "--json"])
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout))


def test_inspect_counts_as_transformers_does(small_model_dir: Path) -> None:
    model = Ernie4_5_MoeForCausalLM.from_pretrained(small_model_dir)
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    num_idle = 2 * 2 * 3 * 16 * 8  # 2 layers, 2 of 4 experts, 3 projections
    facts = inspect_json(small_model_dir)
    assert facts["num_parameters"] == num_parameters
    assert facts["num_active_parameters"] == num_parameters - num_idle
    assert facts["architecture"] == "Ernie4_5_MoeForCausalLM"
    assert (facts["num_layers"], facts["num_moe_layers"], facts["num_experts"]) == (3, 2, 4)
    assert facts["kv_bytes_per_token"] == 3 * 2 * 1 * 8 * 2
    assert facts["weight_bytes"] == sum(path.stat().st_size for path in small_model_dir.glob("*.safetensors"))
    assert facts["statement"] is None
    assert len(list(small_model_dir.glob("*.safetensors"))) > 1


def test_inspect_prints_a_table(small_model_dir: Path) -> None:
    result = RUNNER.invoke(model_app, ["inspect", str(small_model_dir)], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    for words in ("3 (1 dense, 2 MoE)", "4 per MoE layer, 2 per token, 1 shared", "96 bytes per token"):
        assert words in result.output


def test_inspect_needs_no_torch() -> None:
    code = "import sys, deploy.commands.model; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def remove_shard(model_dir: Path) -> None:
    min(model_dir.glob("*.safetensors")).unlink()


def cut_shard(model_dir: Path) -> None:
    min(model_dir.glob("*.safetensors")).write_bytes(b"\x10")


def remove_tokenizer(model_dir: Path) -> None:
    (model_dir / "tokenizer.json").unlink()


def other_model(model_dir: Path) -> None:
    (model_dir / "config.json").write_text('{"model_type": "llama"}')


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (remove_shard, "safetensors"),
        (cut_shard, "safetensors"),
        (remove_tokenizer, "tokenizer.json"),
        (other_model, "llama"),
    ],
)
def test_inspect_bad_folder_is_one_sentence_and_code_2(
    small_model_dir: Path, damage: Callable[[Path], None], words: str
) -> None:
    damage(small_model_dir)
    result = RUNNER.invoke(model_app, ["inspect", str(small_model_dir)])
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert words in result.stderr


def test_inspect_missing_folder_is_code_2(tmp_path: Path) -> None:
    result = RUNNER.invoke(model_app, ["inspect", str(tmp_path / "absent")])
    assert (result.exit_code, "is not a folder" in result.stderr) == (2, True)


def test_inspect_demo_not_built_says_how(tmp_path: Path) -> None:
    result = RUNNER.invoke(model_app, ["inspect"], env={"XDG_CACHE_HOME": str(tmp_path)})
    assert (result.exit_code, "baton model build-demo" in result.stderr) == (2, True)


def test_build_demo_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(work_dir: Path) -> Path:
        (work_dir / "checkpoint").mkdir()
        write_demo_record(work_dir / "checkpoint", {})
        return work_dir / "checkpoint"

    monkeypatch.setattr(demo_model, "_build", build)
    arguments = ["build-demo", "--output", str(tmp_path / "demo")]
    assert RUNNER.invoke(model_app, arguments).stdout == f"Built: {tmp_path / 'demo'}\n"
    assert RUNNER.invoke(model_app, arguments).stdout == f"Already there: {tmp_path / 'demo'}\n"
    assert RUNNER.invoke(model_app, [*arguments, "--force"]).stdout == f"Built: {tmp_path / 'demo'}\n"


def test_build_demo_foreign_folder_is_code_2(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = RUNNER.invoke(model_app, ["build-demo", "--output", str(tmp_path)])
    assert (result.exit_code, "is no demo model" in result.stderr) == (2, True)


@pytest.mark.demo
def test_demo_summary(demo_model_dir: Path) -> None:
    summary = summarize_model(demo_model_dir)
    assert (summary.num_layers, summary.num_moe_layers) == (30, 29)
    assert (summary.num_experts, summary.num_experts_per_token, summary.num_shared_experts) == (4, 2, 0)
    assert (summary.num_heads, summary.num_kv_heads, summary.head_dim) == (9, 3, 64)
    assert summary.kv_bytes_per_token == 23040
    assert summary.context_length == 8192
    assert summary.has_chat_template
    assert summary.statement is not None
    assert "identical copies" in summary.statement


# --- memory plans


def inspect(*arguments: str) -> dict[str, Any]:
    result = RUNNER.invoke(model_app, ["inspect", *arguments, "--json"])
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout))


def test_inspect_plans_a_published_model_without_its_files() -> None:
    facts = inspect("ernie-4.5-300b-a47b", "--tp", "8", "--ep", "8", "--quantization", "wint4")
    plan = facts["plan"]
    assert (plan["num_ranks"], plan["kv_bytes_per_token"], plan["kv_bytes_per_token_of_rank"]) == (8, 221184, 27648)
    assert 19e9 < plan["total_weight_bytes"] < 20e9
    assert (plan["largest_context"], plan["largest_batch"] > 10) == (131072, True)
    assert facts["request"]["topology"] == {
        "tensor_parallel_size": 8,
        "expert_parallel_size": 8,
        "num_redundant_experts": 0,
    }


def test_inspect_plans_a_folder_with_nothing_but_a_config(small_model_dir: Path) -> None:
    with_weights = inspect(str(small_model_dir))
    for path in small_model_dir.iterdir():
        if path.name != "config.json":
            path.unlink()
    facts = inspect(str(small_model_dir))
    assert facts["plan"] == with_weights["plan"]
    assert facts["plan"]["num_parameters"] == with_weights["num_parameters"]
    assert facts["plan"]["num_active_parameters"] == with_weights["num_active_parameters"]
    assert facts["plan"]["kv_bytes_per_token"] == with_weights["kv_bytes_per_token"]
    assert "stored_dtypes" not in facts


def test_inspect_plans_what_is_not_served_though_its_weights_are_there(small_model_dir: Path) -> None:
    config = json.loads((small_model_dir / "config.json").read_text())
    config["quantization_config"] = {"quantization": "wint4"}
    (small_model_dir / "config.json").write_text(json.dumps(config))
    result = RUNNER.invoke(model_app, ["inspect", str(small_model_dir)], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert "Note: checkpoints quantized as 'wint4' can be planned, not served yet." in result.output


def test_inspect_takes_the_device_and_the_context_to_fit() -> None:
    plan = inspect("ernie-4.5-0.3b", "--gpu", "b200", "--max-model-len", "4096")["plan"]
    assert plan["context"] == 4096
    smaller = inspect("ernie-4.5-0.3b", "--device-memory-gb", "4", "--max-model-len", "4096")["plan"]
    assert smaller["usable_bytes"] == int(4 * 2**30 * 0.9)
    assert 0 < smaller["largest_batch"] < plan["largest_batch"]


def test_inspect_prints_parts_and_what_fits() -> None:
    arguments = ["inspect", "ernie-4.5-vl-28b-a3b", "--tp", "4", "--quantization", "wint8", "--gpu", "L20"]
    result = RUNNER.invoke(model_app, arguments, env={"COLUMNS": "200"})
    assert result.exit_code == 0
    for words in (
        "memory of each of 4 devices, tp 4, ep 1", "29.40 B, 3.36 B active", "vision experts", "vision tower",
        "14,336 bytes, 57,344 bytes in the whole model", "131,072 tokens of one sequence",
        "Assumed: projections in 8-bit", "Note: vision-language models can be planned, not served yet.",
    ):  # fmt: skip
        assert words in result.output


def test_inspect_says_how_much_is_missing() -> None:
    result = RUNNER.invoke(model_app, ["inspect", "ernie-4.5-300b-a47b"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert "GiB short: take more devices" in result.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["ernie-4.5-21b-a3b", "--tp", "8"],
            "--tensor-parallel-size is 8, which does not divide num_attention_heads (20)",
        ),
        (
            ["ernie-4.5-21b-a3b", "--ep", "7"],
            "--expert-parallel-size is 7, which does not divide moe_num_experts (64)",
        ),
        (["ernie-4.5-21b-a3b", "--quantization", "int3"], "--quantization is 'int3'"),
        (["ernie-4.5-21b-a3b", "--device-memory-gb", "-1"], "--device-memory-gb"),
        (["ernie-5"], "or one of ernie-4.5-0.3b"),
    ],
)
def test_inspect_bad_request_is_one_sentence_and_code_2(arguments: list[str], words: str) -> None:
    result = RUNNER.invoke(model_app, ["inspect", *arguments])
    assert (result.exit_code, words in result.stderr, result.stderr.count("\n")) == (2, True, 1)
