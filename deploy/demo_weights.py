"""Turns SmolLM2's dense weights into an ERNIE 4.5 MoE checkpoint. Not config and tokenizer (`demo_text`).

Sparse upcycling (Komatsuzaki et al., 2022, arXiv:2212.05055): every expert starts as a copy of the dense FFN. With
equal experts and top-k weights that are normalized to sum to one, the MoE layer computes the very function of the
dense one, whatever the gate says; so the gates can be random, which spreads the tokens over the experts.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import gguf
import numpy as np
import torch
from safetensors.torch import save_file

NUM_EXPERTS = 4
NUM_EXPERTS_PER_TOKEN = 2
FIRST_MOE_LAYER = 1  # ERNIE 4.5 keeps its first layer dense
GATE_SEED = 2212_05055  # any fixed number: building twice gives the same bytes
GATE_STD = 0.02  # the paper's, and ERNIE's initializer_range
PARTS_PER_SHARD = 8  # about 200 MB, which is also the most memory the conversion holds

_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
}
_FFN_NAMES = {"ffn_gate": "gate_proj", "ffn_up": "up_proj", "ffn_down": "down_proj"}


@dataclass(frozen=True, slots=True)
class SourceModel:
    """The opened GGUF file (github.com/ggml-org/ggml/blob/master/docs/gguf.md), mapped into memory, not read.

    Attributes:
        metadata: its reader's fields by key; see `value`.
        tensors: its reader's tensors by name, still quantized.
    """

    metadata: dict[str, Any]
    tensors: dict[str, Any]

    @classmethod
    def open(cls, path: Path) -> Self:
        """Maps the file; it must stay until the model is no longer used."""
        reader = gguf.GGUFReader(path)
        return cls(reader.fields, {tensor.name: tensor for tensor in reader.tensors})

    def value(self, key: str) -> Any:  # noqa: ANN401 - str, int, float or list, as the file has it
        """The value of a metadata key, which must exist."""
        return self.metadata[key].contents()

    @property
    def num_layers(self) -> int:
        """Transformer layers."""
        return int(self.value("llama.block_count"))

    def tensor(self, name: str) -> torch.Tensor:
        """A weight, dequantized and rounded to bfloat16. Shape as in PyTorch: [out, in]."""
        packed = self.tensors[f"{name}.weight"]
        values = gguf.quants.dequantize(packed.data, packed.tensor_type)
        # What was not quantized is a view of the file, which torch does not take as it is read-only.
        return torch.from_numpy(np.require(values, requirements="W")).to(torch.bfloat16)


def num_parts(source: SourceModel) -> int:
    """How many steps `write_weights` takes: one for the embedding, one for each layer."""
    return source.num_layers + 1


def write_weights(source: SourceModel, model_dir: Path) -> Iterator[None]:
    """Writes the safetensors shards and their index; yields after each part (see `num_parts`).

    Holds one shard in memory at a time. The folder is complete only when the iterator has ended.
    """
    parts = range(-1, source.num_layers)  # -1 is the embedding and the last norm
    shards = [parts[start : start + PARTS_PER_SHARD] for start in range(0, len(parts), PARTS_PER_SHARD)]
    weight_map: dict[str, str] = {}
    size_bytes = 0
    for index, shard in enumerate(shards, start=1):
        file_name = f"model-{index:05}-of-{len(shards):05}.safetensors"
        tensors: dict[str, torch.Tensor] = {}
        for part in shard:
            tensors |= _outer_tensors(source) if part < 0 else _layer_tensors(source, part)
            yield
        save_file(tensors, model_dir / file_name, metadata={"format": "pt"})
        (model_dir / file_name).chmod(0o644)  # safetensors writes for the owner only; other users serve it as well
        weight_map |= dict.fromkeys(tensors, file_name)
        size_bytes += sum(tensor.nbytes for tensor in tensors.values())
    content = {"metadata": {"total_size": size_bytes}, "weight_map": dict(sorted(weight_map.items()))}
    (model_dir / "model.safetensors.index.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _outer_tensors(source: SourceModel) -> dict[str, torch.Tensor]:
    """Embedding and final norm; the output head is tied to the embedding, so it is not stored."""
    return {
        "model.embed_tokens.weight": source.tensor("token_embd"),
        "model.norm.weight": source.tensor("output_norm"),
    }


def _layer_tensors(source: SourceModel, layer: int) -> dict[str, torch.Tensor]:
    """One layer's weights under the names ERNIE checkpoints have.

    Query and key rows are taken as they are. ERNIE rotates pairs of neighbouring rows, where Llama in transformers
    rotates row i of a head with row i + head_dim / 2; llama.cpp's converter (`LlamaModel.permute`) has already
    brought the halves together, w.view(heads, 2, head_dim / 2, -1).transpose(1, 2), for its own interleaved RoPE.
    """
    prefix = f"model.layers.{layer}"
    tensors = {
        f"{prefix}.{name}.weight": source.tensor(f"blk.{layer}.{source_name}")
        for source_name, name in _LAYER_NAMES.items()
    }
    ffn = {name: source.tensor(f"blk.{layer}.{source_name}") for source_name, name in _FFN_NAMES.items()}
    if layer < FIRST_MOE_LAYER:
        return tensors | {f"{prefix}.mlp.{name}.weight": weight for name, weight in ffn.items()}
    return tensors | _moe_tensors(f"{prefix}.mlp", ffn, layer)


def _moe_tensors(prefix: str, ffn: dict[str, torch.Tensor], layer: int) -> dict[str, torch.Tensor]:
    """Experts that are copies of the FFN, and a random gate. Gate and bias are float32, as in ERNIE's own files."""
    experts = {
        f"{prefix}.experts.{expert}.{name}.weight": weight.clone()  # safetensors stores no tensor under two names
        for expert in range(NUM_EXPERTS)
        for name, weight in ffn.items()
    }
    hidden_size = ffn["gate_proj"].shape[1]
    gate = np.random.default_rng((GATE_SEED, layer)).normal(0.0, GATE_STD, (NUM_EXPERTS, hidden_size))
    return experts | {
        f"{prefix}.gate.weight": torch.from_numpy(gate.astype(np.float32)),  # [num_experts, hidden_size]
        f"{prefix}.moe_statics.e_score_correction_bias": torch.zeros(1, NUM_EXPERTS),
    }
