"""The ERNIE 4.5 text model: embedding, decoder layers, output projection.

Reference: transformers' `modeling_ernie4_5_moe.py` and `modeling_ernie4_5.py`, which the tests compare with.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from torch import Tensor

from engine.batch import StepBatch
from engine.config import ModelConfig
from engine.layers.attention import Attention
from engine.layers.mlp import GatedMlp
from engine.layers.moe import MoeMlp
from engine.layers.norm import RmsNorm
from engine.layers.paged_kv import PagedKv
from engine.layers.rope import RotaryEmbedding
from engine.layers.vocabulary import make_vocabulary
from engine.weights import TensorOptions, TensorSlot


class DecoderLayer:
    """One pre-norm transformer layer, with a dense MLP or experts as the config says.

    Args:
        layer: its index.
        config: the model.
        options: type and device.

    Attributes:
        mlp: its second half.
    """

    def __init__(self, layer: int, config: ModelConfig, options: TensorOptions) -> None:
        self._shard = options.shard
        self._attention_norm = RmsNorm(config.hidden_size, config.rms_norm_eps, options)
        self._attention = Attention(layer, config, options)
        self._mlp_norm = RmsNorm(config.hidden_size, config.rms_norm_eps, options)
        self.mlp: MoeMlp | GatedMlp
        if config.is_moe_layer(layer):
            self.mlp = MoeMlp(config, options)
        else:
            self.mlp = GatedMlp(
                config.hidden_size, config.intermediate_size, use_bias=config.use_bias, options=options
            )

    def __call__(
        self,
        x: Tensor,
        delta: Tensor | None,
        rotations: Tensor,
        batch: StepBatch,
        paged_kv: PagedKv,
        *,
        rows: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Computes a layer and stores the step's KV of it.

        The input is `x + delta`, and so is the output: the addition comes with the norm that follows it. A rank
        without tokens has nothing to attend, but takes part in what the experts exchange.

        Args:
            x: `[num_tokens, hidden_size]`; overwritten.
            delta: of the same shape, or None for zero.
            rotations: of `RotaryEmbedding`.
            batch: where the tokens belong.
            paged_kv: the pool.
            rows: the tokens whose output is wanted, or None for all.
        """
        attended = x
        if len(x):
            attended = self._attention(self._attention_norm(x, delta), rotations, batch, paged_kv, rows)
            self._shard.add_up_(attended)
        if rows is not None:
            x = x.index_select(0, rows)
        out = self.mlp(self._mlp_norm(x, attended))
        self._shard.add_up_(out)
        return x, out

    def slots(self, prefix: str) -> Iterator[TensorSlot]:
        """All tensors of `{prefix}`."""
        yield from self._attention_norm.slots(f"{prefix}.input_layernorm")
        yield from self._attention.slots(f"{prefix}.self_attn")
        yield from self._mlp_norm.slots(f"{prefix}.post_attention_layernorm")
        yield from self.mlp.slots(f"{prefix}.mlp")


class Ernie45Model:
    """A whole model; its weights are uninitialised until a checkpoint fills `slots()`.

    Args:
        config: the model.
        options: type and device; `meta` makes a model that has shapes but cannot compute.

    Attributes:
        moe_layers: the experts by index of the layer; layers without are absent.
    """

    def __init__(self, config: ModelConfig, options: TensorOptions) -> None:
        # Only a tied embedding is multiplied with, which is what tiles are for.
        is_tied = config.tie_word_embeddings
        plain = replace(options, kernels=options.kernels if is_tied else None)
        self._residual_dtype = options.residual_dtype
        self._embedding = make_vocabulary(config.vocab_size, config.hidden_size, plain)
        self._layers = [DecoderLayer(layer, config, options) for layer in range(config.num_layers)]
        mlps = {layer: decoder_layer.mlp for layer, decoder_layer in enumerate(self._layers)}
        self.moe_layers = {layer: mlp for layer, mlp in mlps.items() if isinstance(mlp, MoeMlp)}
        self._norm = RmsNorm(config.hidden_size, config.rms_norm_eps, options)
        self._rope = RotaryEmbedding(config.head_dim, config.rope_theta, options.device)
        # transformers gives the output projection a bias in the mixture-of-experts class only.
        use_bias = config.use_bias and config.moe is not None
        self._vocabulary_part = options.shard.share(config.vocab_size)
        self._head_bias = options.empty(self._vocabulary_part.size) if use_bias else None
        self._head = self._embedding
        if not is_tied:
            self._head = make_vocabulary(config.vocab_size, config.hidden_size, options)

    def __call__(self, batch: StepBatch, paged_kv: PagedKv, on_layer: Callable[[], None] | None = None) -> Tensor:
        """Computes a step and stores its KV; returns logits `[num_draws, vocab_size]`, float32.

        Args:
            batch: the step.
            paged_kv: the pool.
            on_layer: called after every layer; its KV is stored then, unless the device computes asynchronously.
        """
        x, delta = self._embedding.embed(batch.token_ids).to(self._residual_dtype), None  # [num_tokens, hidden_size]
        rotations = self._rope.rotations(batch.positions)
        for layer in self._layers[:-1]:
            x, delta = layer(x, delta, rotations, batch, paged_kv)
            if on_layer is not None:
                on_layer()
        # All that the other tokens leave behind is their KV, so the last layer ends for them after attention.
        x, delta = self._layers[-1](x, delta, rotations, batch, paged_kv, rows=batch.logit_rows)
        if on_layer is not None:
            on_layer()
        return self._head.logits(self._norm(x, delta), self._head_bias)  # from [num_draws, hidden_size]

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """For what is computed inside, tokens are not counted."""
        counted = [(moe, moe.num_tokens.clone()) for moe in self.moe_layers.values()]
        try:
            yield
        finally:
            for moe, num_tokens in counted:
                moe.num_tokens = num_tokens

    @staticmethod
    def experts_prefix(layer: int) -> str:
        """What the names of a layer's experts in a checkpoint begin with."""
        return f"model.layers.{layer}.mlp.experts"

    def slots(self) -> Iterator[TensorSlot]:
        """Every checkpoint tensor of the model."""
        yield self._embedding.slot("model.embed_tokens.weight")
        for layer, decoder_layer in enumerate(self._layers):
            yield from decoder_layer.slots(f"model.layers.{layer}")
        yield from self._norm.slots("model.norm")
        if self._head is not self._embedding:
            yield self._head.slot("lm_head.weight")
        if self._head_bias is not None:
            yield TensorSlot(("lm_head.bias",), self._head_bias, rows=self._vocabulary_part)
