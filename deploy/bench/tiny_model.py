"""A small random ERNIE 4.5 mixture-of-experts checkpoint with a tokenizer, for measuring without a download."""

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

VOCAB_SIZE = 8192
CONTEXT = 131_072
TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"


def write_tiny_model(model_dir: Path, num_experts: int = 16) -> Path:
    """Writes the checkpoint that `baton bench engine --make-tiny` measures; returns its folder.

    Hidden size 512, 8 layers, the first of them dense, 8 query and 2 key/value heads of 64, experts of width 256 of
    which a token visits four, one shared expert, 8,192 tokens, bfloat16. Every token is a word `w123`, so that a text
    of n words is a prompt of n tokens.

    Args:
        model_dir: created; an existing checkpoint there is kept as it is.
        num_experts: per layer.
    """
    if not (model_dir / "config.json").exists():
        model_dir.mkdir(parents=True, exist_ok=True)
        _write_text_files(model_dir)
        _write_weights(model_dir, num_experts)
    return model_dir


def _write_weights(model_dir: Path, num_experts: int) -> None:
    import torch  # noqa: PLC0415 - seconds that other commands must not pay for
    from transformers import Ernie4_5_MoeConfig, Ernie4_5_MoeForCausalLM  # noqa: PLC0415
    from transformers.utils.logging import disable_progress_bar  # noqa: PLC0415

    disable_progress_bar()
    torch.manual_seed(0)
    config = Ernie4_5_MoeConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=512,
        intermediate_size=1024,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        moe_num_experts=num_experts,
        moe_k=4,
        moe_num_shared_experts=1,
        moe_intermediate_size=256,
        moe_layer_start_index=1,
        eos_token_id=VOCAB_SIZE - 1,
        dtype="bfloat16",
    )
    Ernie4_5_MoeForCausalLM(config).to(torch.bfloat16).save_pretrained(model_dir)


def _write_text_files(model_dir: Path) -> None:
    vocabulary = {f"w{token}": token for token in range(VOCAB_SIZE - 1)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="w0"))  # noqa: S106 - a word, not a secret
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken("</s>", special=True)])
    tokenizer.save(str(model_dir / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": TEMPLATE, "eos_token": "</s>"}
    (model_dir / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
