"""The ERNIE 4.5 text model: embedding, decoder layers, output projection.

Reference: transformers' `modeling_ernie4_5_moe.py` and `modeling_ernie4_5.py`, which the tests compare with.
"""

from collections.abc import Iterator

from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the name everyone knows it by

from engine.batch import StepBatch
from engine.config import ModelConfig
from engine.layers.attention import Attention
from engine.layers.linear import linear
from engine.layers.mlp import GatedMlp
from engine.layers.moe import MoeMlp
from engine.layers.norm import RmsNorm
from engine.layers.paged_kv import PagedKv
from engine.layers.rope import RotaryEmbedding
from engine.weights import TensorOptions, TensorSlot


class DecoderLayer:
    """One pre-norm transformer layer, with a dense MLP or experts as the config says.

    Args:
        layer: its index.
        config: the model.
        options: type and device.
    """

    def __init__(self, layer: int, config: ModelConfig, options: TensorOptions) -> None:
        self._attention_norm = RmsNorm(config.hidden_size, config.rms_norm_eps, options)
        self._attention = Attention(layer, config, options)
        self._mlp_norm = RmsNorm(config.hidden_size, config.rms_norm_eps, options)
        self._mlp: MoeMlp | GatedMlp
        if config.is_moe_layer(layer):
            self._mlp = MoeMlp(config, options)
        else:
            self._mlp = GatedMlp(
                config.hidden_size, config.intermediate_size, use_bias=config.use_bias, options=options
            )

    def __call__(
        self, x: Tensor, rotations: Tensor, batch: StepBatch, paged_kv: PagedKv, rows: Tensor | None = None
    ) -> Tensor:
        """Computes a layer and stores the step's KV of it; for the arguments see `Attention.__call__`."""
        attended = self._attention(self._attention_norm(x), rotations, batch, paged_kv, rows)
        x = attended.add_(x if rows is None else x.index_select(0, rows))
        return self._mlp(self._mlp_norm(x)).add_(x)

    def slots(self, prefix: str) -> Iterator[TensorSlot]:
        """All tensors of `{prefix}`."""
        yield from self._attention_norm.slots(f"{prefix}.input_layernorm")
        yield from self._attention.slots(f"{prefix}.self_attn")
        yield from self._mlp_norm.slots(f"{prefix}.post_attention_layernorm")
        yield from self._mlp.slots(f"{prefix}.mlp")


class Ernie45Model:
    """A whole model; its weights are uninitialised until a checkpoint fills `slots()`.

    Args:
        config: the model.
        options: type and device; `meta` makes a model that has shapes but cannot compute.
    """

    def __init__(self, config: ModelConfig, options: TensorOptions) -> None:
        self._config = config
        self._embedding = options.empty(config.vocab_size, config.hidden_size)
        self._layers = [DecoderLayer(layer, config, options) for layer in range(config.num_layers)]
        self._norm = RmsNorm(config.hidden_size, config.rms_norm_eps, options)
        self._rope = RotaryEmbedding(config.head_dim, config.rope_theta, options.device)
        # transformers gives the output projection a bias in the mixture-of-experts class only.
        use_bias = config.use_bias and config.moe is not None
        self._head_bias = options.empty(config.vocab_size) if use_bias else None
        self._head = self._embedding
        if not config.tie_word_embeddings:
            self._head = options.empty(config.vocab_size, config.hidden_size)

    def __call__(self, batch: StepBatch, paged_kv: PagedKv) -> Tensor:
        """Computes a step and stores its KV; returns logits `[num_draws, vocab_size]`, float32."""
        x = F.embedding(batch.token_ids, self._embedding)  # [num_tokens, hidden_size]
        rotations = self._rope.rotations(batch.positions)
        for layer in self._layers[:-1]:
            x = layer(x, rotations, batch, paged_kv)
        # All that the other tokens leave behind is their KV, so the last layer ends for them after attention.
        x = self._layers[-1](x, rotations, batch, paged_kv, batch.logit_rows)  # [num_draws, hidden_size]
        return linear(self._norm(x), self._head, self._head_bias).float()

    def slots(self) -> Iterator[TensorSlot]:
        """Every checkpoint tensor of the model."""
        yield TensorSlot(("model.embed_tokens.weight",), self._embedding)
        for layer, decoder_layer in enumerate(self._layers):
            yield from decoder_layer.slots(f"model.layers.{layer}")
        yield from self._norm.slots("model.norm")
        if self._head is not self._embedding:
            yield TensorSlot(("lm_head.weight",), self._head)
        if self._head_bias is not None:
            yield TensorSlot(("lm_head.bias",), self._head_bias)
