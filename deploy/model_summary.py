"""What a checkpoint folder holds, from its JSON files and the headers of its weights. Loads no weights, no torch."""

from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path

from safetensors import SafetensorError, safe_open

from core.errors import CheckpointError
from deploy.demo_record import STATEMENT, demo_version
from engine.config import ModelConfig
from engine.sizing import kv_layout
from router.text.model_files import read_json_file
from router.text.tokenizer import TextCodec

SINGLE_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"
EXPERT_MARK = ".mlp.experts."  # in the names of routed experts' tensors
_ARCHITECTURES = {"ernie4_5_moe": "Ernie4_5_MoeForCausalLM", "ernie4_5": "Ernie4_5ForCausalLM"}


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """The facts of a checkpoint that `baton model inspect` shows.

    Attributes:
        path: the folder.
        architecture: the transformers class.
        num_parameters: of all stored tensors; a tied output head is not stored and not counted.
        num_active_parameters: those that take part in computing one token.
        num_layers: dense and MoE layers.
        num_moe_layers: layers with experts.
        num_experts: routed experts in a MoE layer; 0 in a dense model, as the next two.
        num_experts_per_token: routed experts a token takes.
        num_shared_experts: experts every token takes besides.
        num_heads: query heads.
        num_kv_heads: key and value heads.
        head_dim: size of a head.
        hidden_size: width of the residual stream.
        context_length: most tokens of prompt plus answer.
        dtype: of the model, as config.json says; float32 if it does not say.
        stored_dtypes: number of tensors by the type they are stored in, in the words of safetensors.
        weight_bytes: size of the weight files.
        kv_bytes_per_token: keys and values of one token over all layers, in the model's dtype.
        vocab_size: rows of the embedding.
        has_chat_template: whether chats can be rendered.
        statement: what the demo model is; None for other models.
    """

    path: str
    architecture: str
    num_parameters: int
    num_active_parameters: int
    num_layers: int
    num_moe_layers: int
    num_experts: int
    num_experts_per_token: int
    num_shared_experts: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    hidden_size: int
    context_length: int
    dtype: str
    stored_dtypes: dict[str, int]
    weight_bytes: int
    kv_bytes_per_token: int
    vocab_size: int
    has_chat_template: bool
    statement: str | None


def has_weights(model_dir: Path) -> bool:
    """Whether a folder holds weights, be they complete or not; it may also hold a config.json alone."""
    return any((model_dir / name).exists() for name in (SINGLE_FILE, INDEX_FILE))


def summarize_model(model_dir: Path) -> ModelSummary:
    """Reads the facts of a checkpoint folder.

    Raises:
        CheckpointError: the folder is missing, incomplete, or holds a model Baton does not serve.
    """
    if not model_dir.is_dir():
        raise CheckpointError(f"{model_dir} is not a folder; pass the folder of a Hugging Face checkpoint")
    config = ModelConfig.from_dir(model_dir)
    weights = _read_headers(model_dir)
    codec = TextCodec.load(model_dir)
    moe, dtype = config.moe, config.dtype or "float32"
    return ModelSummary(
        path=str(model_dir),
        architecture=_ARCHITECTURES[config.model_type],
        num_parameters=weights.num_parameters,
        num_active_parameters=weights.num_active_parameters(config),
        num_layers=config.num_layers,
        num_moe_layers=sum(map(config.is_moe_layer, range(config.num_layers))),
        num_experts=moe.num_experts if moe else 0,
        num_experts_per_token=moe.top_k if moe else 0,
        num_shared_experts=moe.num_shared_experts if moe else 0,
        num_heads=config.num_heads,
        num_kv_heads=config.num_kv_heads,
        head_dim=config.head_dim,
        hidden_size=config.hidden_size,
        context_length=config.max_position_embeddings,
        dtype=dtype,
        stored_dtypes=weights.dtypes,
        weight_bytes=weights.size_bytes,
        kv_bytes_per_token=kv_layout(config, 1, dtype).bytes_per_token,
        vocab_size=config.vocab_size,
        has_chat_template=codec.has_chat_template,
        statement=STATEMENT if demo_version(model_dir) is not None else None,
    )


@dataclass(frozen=True, slots=True)
class _Headers:
    """Sums over the headers of all weight files."""

    num_parameters: int
    num_expert_parameters: int
    dtypes: dict[str, int]
    size_bytes: int

    def num_active_parameters(self, config: ModelConfig) -> int:
        """All but the experts that a token does not take."""
        if config.moe is None:
            return self.num_parameters
        num_idle_experts = config.moe.num_experts - config.moe.top_k
        return self.num_parameters - self.num_expert_parameters * num_idle_experts // config.moe.num_experts


def _read_headers(model_dir: Path) -> _Headers:
    num_parameters: Counter[bool] = Counter()  # by whether they are a routed expert's
    dtypes: Counter[str] = Counter()
    paths = _weight_files(model_dir)
    for path in paths:
        try:
            with safe_open(path, framework="numpy") as tensors:
                for name in tensors.keys():  # noqa: SIM118 - not a mapping
                    header = tensors.get_slice(name)
                    num_parameters[EXPERT_MARK in name] += prod(header.get_shape())
                    dtypes[header.get_dtype()] += 1
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path} cannot be read ({error}); fetch it again") from error
    return _Headers(
        num_parameters=num_parameters.total(),
        num_expert_parameters=num_parameters[True],
        dtypes=dict(dtypes),
        size_bytes=sum(path.stat().st_size for path in paths),
    )


def _weight_files(model_dir: Path) -> list[Path]:
    """As `engine.checkpoint.weight_files`, which would import torch."""
    index = read_json_file(model_dir / INDEX_FILE, required=False)
    weight_map = index.get("weight_map", {"": SINGLE_FILE})
    if not isinstance(weight_map, dict):
        raise CheckpointError(f"weight_map of {INDEX_FILE} in {model_dir} is no object; fetch it again")
    return [model_dir / name for name in sorted(set(map(str, weight_map.values())))]
