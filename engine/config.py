"""The shape of an ERNIE 4.5 text model, read from a Hugging Face `config.json`. Not a worker's own settings."""

from dataclasses import dataclass
from pathlib import Path

from core.errors import CheckpointError
from engine.json_fields import JsonFields, read_json_object
from engine.kv.layout import DTYPE_BYTES

DENSE_MODEL_TYPE = "ernie4_5"
MOE_MODEL_TYPE = "ernie4_5_moe"
# What a file that leaves a field out means: the defaults of transformers' Ernie4_5Config and Ernie4_5_MoeConfig.
DEFAULT_ROPE_THETA = 500_000.0
DEFAULT_CONTEXT = 131_072
DEFAULT_DENSE_HEAD_DIM = 128
DEFAULT_RMS_NORM_EPS = 1e-5
DEFAULT_NORM_MIN = 1e-12


@dataclass(frozen=True, slots=True)
class MoeConfig:
    """The mixture-of-experts part of a model.

    Attributes:
        num_experts: routed experts per layer.
        top_k: routed experts a token goes to.
        num_shared_experts: experts that every token goes to; they are one MLP of this many times the width.
        intermediate_size: width of one expert.
        first_layer: no layer before this one has experts.
        last_layer: no layer after this one has experts.
        layer_interval: of those in between, every `layer_interval`-th layer has experts.
        norm_min: lower bound of the sum that routing weights are divided by.
    """

    num_experts: int
    top_k: int
    num_shared_experts: int
    intermediate_size: int
    first_layer: int
    last_layer: int
    layer_interval: int
    norm_min: float


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Everything that determines a model's tensors and arithmetic.

    Attributes:
        model_type: `ernie4_5` or `ernie4_5_moe`.
        vocab_size: rows of the embedding; token ids are below it.
        hidden_size: width of the residual stream.
        intermediate_size: width of a dense MLP.
        num_layers: transformer layers.
        num_heads: query heads.
        num_kv_heads: key/value heads; divides `num_heads`.
        head_dim: elements per head, even.
        max_position_embeddings: the longest context in tokens.
        rms_norm_eps: epsilon of every norm.
        rope_theta: base of the rotary frequencies.
        use_bias: whether projections other than routed experts' have a bias.
        tie_word_embeddings: whether the output projection is the embedding.
        eos_token_ids: tokens that end an answer; may be empty.
        dtype: a key of `DTYPE_BYTES` that the checkpoint says it was saved in, or None if it does not say.
        moe: the experts, or None for a dense model.
    """

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_position_embeddings: int
    rms_norm_eps: float
    rope_theta: float
    use_bias: bool
    tie_word_embeddings: bool
    eos_token_ids: tuple[int, ...]
    dtype: str | None
    moe: MoeConfig | None

    @classmethod
    def from_dir(cls, model_dir: Path) -> "ModelConfig":
        """Reads `model_dir/config.json`.

        Raises:
            CheckpointError: the file cannot be read, or describes a model that this engine does not serve.
        """
        path = model_dir / "config.json"
        fields = JsonFields(path, read_json_object(path))
        _refuse_unknown_arithmetic(fields)
        return cls.from_fields(fields)

    @classmethod
    def from_fields(cls, fields: JsonFields) -> "ModelConfig":
        """Reads the fields of a text model, whether or not this engine could serve it as it is stored.

        Raises:
            CheckpointError: a field is missing or out of range.
        """
        num_heads = fields.integer("num_attention_heads")
        num_layers = fields.integer("num_hidden_layers")
        config = cls(
            model_type=fields.values["model_type"],
            vocab_size=fields.integer("vocab_size"),
            hidden_size=fields.integer("hidden_size"),
            intermediate_size=fields.integer("intermediate_size"),
            num_layers=num_layers,
            num_heads=num_heads,
            num_kv_heads=fields.integer("num_key_value_heads", num_heads),
            head_dim=_head_dim(fields, num_heads),
            max_position_embeddings=fields.integer("max_position_embeddings", DEFAULT_CONTEXT),
            rms_norm_eps=fields.number("rms_norm_eps", DEFAULT_RMS_NORM_EPS),
            rope_theta=_rope_theta(fields),
            use_bias=fields.flag("use_bias", default=False),
            tie_word_embeddings=fields.flag("tie_word_embeddings", default=True),
            eos_token_ids=_eos_token_ids(fields),
            dtype=_dtype(fields),
            moe=_moe(fields, num_layers) if fields.values["model_type"] == MOE_MODEL_TYPE else None,
        )
        _check_divisibility(fields, config)
        return config

    def is_moe_layer(self, layer: int) -> bool:
        """Whether a layer has experts; the rule of transformers' `Ernie4_5_MoeDecoderLayer`."""
        moe = self.moe
        return (
            moe is not None and moe.first_layer <= layer <= moe.last_layer and (layer + 1) % moe.layer_interval == 0
        )


def _refuse_unknown_arithmetic(fields: JsonFields) -> None:
    """Refuses what would load and then compute something else than the model's authors meant."""
    if fields.values.get("model_type") not in (DENSE_MODEL_TYPE, MOE_MODEL_TYPE):
        raise fields.error("model_type", f"{DENSE_MODEL_TYPE!r} or {MOE_MODEL_TYPE!r}: serve an ERNIE 4.5 text model")
    if fields.values.get("hidden_act", "silu") != "silu":
        raise fields.error("hidden_act", "'silu', the activation of every ERNIE 4.5 model")
    if fields.values.get("quantization_config") is not None:
        raise fields.error("quantization_config", "a checkpoint that is not quantized: use the bfloat16 one")
    for name in ("rope_parameters", "rope_scaling"):
        rope = fields.child(name)
        for key in ("rope_type", "type"):
            if rope.values.get(key, "default") != "default":
                raise fields.error(name, "rope_type 'default': scaled rotary embeddings are not served")


def _rope_theta(fields: JsonFields) -> float:
    """Release 5 of transformers writes the base inside `rope_parameters`, earlier ones at the top level."""
    return fields.child("rope_parameters").number("rope_theta", fields.number("rope_theta", DEFAULT_ROPE_THETA))


def _head_dim(fields: JsonFields, num_heads: int) -> int:
    """`head_dim`; absent it is 128 in a dense model's file, otherwise the hidden size split over the heads."""
    if "head_dim" not in fields.values and fields.values["model_type"] == DENSE_MODEL_TYPE:
        return DEFAULT_DENSE_HEAD_DIM
    if fields.values.get("head_dim") is not None:
        return fields.integer("head_dim")
    if fields.integer("hidden_size") % num_heads:
        raise fields.error("hidden_size", f"a multiple of num_attention_heads ({num_heads}), or head_dim to be given")
    return fields.integer("hidden_size") // num_heads


def _eos_token_ids(fields: JsonFields) -> tuple[int, ...]:
    value = fields.values.get("eos_token_id")
    token_ids = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(token_id, int) and token_id >= 0 for token_id in token_ids):
        raise fields.error("eos_token_id", "a token id, a list of them, or null")
    return tuple(token_ids)


def _dtype(fields: JsonFields) -> str | None:
    name = "dtype" if fields.values.get("dtype") is not None else "torch_dtype"  # the name before transformers 5
    value = fields.values.get(name)
    if value is not None and value not in DTYPE_BYTES:
        raise fields.error(name, f"one of {', '.join(DTYPE_BYTES)}")
    return value


def _moe(fields: JsonFields, num_layers: int) -> MoeConfig:
    last_layer = fields.integer("moe_layer_end_index", -1, minimum=-1)
    moe = MoeConfig(
        num_experts=fields.integer("moe_num_experts", 64),
        top_k=fields.integer("moe_k", 6),
        num_shared_experts=fields.integer("moe_num_shared_experts", 2, minimum=0),
        intermediate_size=fields.integer("moe_intermediate_size"),
        first_layer=fields.integer("moe_layer_start_index", 1, minimum=0),
        last_layer=num_layers - 1 if last_layer == -1 else last_layer,
        layer_interval=fields.integer("moe_layer_interval", 1),
        norm_min=fields.number("moe_norm_min", DEFAULT_NORM_MIN),
    )
    if moe.top_k > moe.num_experts:
        raise fields.error("moe_k", f"at most moe_num_experts ({moe.num_experts})")
    return moe


def _check_divisibility(fields: JsonFields, config: ModelConfig) -> None:
    if config.num_heads % config.num_kv_heads:
        raise fields.error("num_attention_heads", f"a multiple of num_key_value_heads ({config.num_kv_heads})")
    if config.head_dim % 2:
        raise CheckpointError(f"{fields.path}: head_dim is {config.head_dim}; rotary embeddings need an even one")
