"""The small JSON files of a checkpoint folder, as far as text needs them. Not weights, and not the model's shape."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from core.errors import CheckpointError, InvalidRequestError
from core.sampling import SamplingParams

FLOAT_DEFAULTS = (
    "temperature",
    "top_p",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
)
"""Sampling parameters whose default a checkpoint may set; `top_k` is another."""


def read_json_file(path: Path, *, required: bool) -> dict[str, Any]:
    """The object in a JSON file; an empty one when the file is missing and not required.

    Raises:
        CheckpointError: missing though required, unreadable, or not a JSON object.
    """
    if not required and not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{path.name} is missing in {path.parent}; pass a folder with a complete Hugging Face checkpoint"
        ) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON ({error}); fetch the checkpoint again") from error
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path} holds a {type(content).__name__}, not a JSON object; fetch the checkpoint again"
        )
    return content


@dataclass(frozen=True, slots=True)
class TextDefaults:
    """What a checkpoint's config.json and generation_config.json say about text in and out.

    Attributes:
        num_embeddings: token ids are below it; None when config.json does not say.
        context_length: most tokens of prompt plus answer; None when config.json does not say.
        eos_token_ids: generating one of these ends an answer. May be empty.
        sampling: what a request gets that does not say otherwise (seed 0). Of generation_config.json are taken, as
            in vLLM, temperature, top_p, top_k, min_p and repetition_penalty, and also presence_penalty and
            frequency_penalty, which ERNIE's has; `do_sample` is not.
    """

    num_embeddings: int | None
    context_length: int | None
    eos_token_ids: frozenset[int]
    sampling: SamplingParams

    @classmethod
    def load(cls, model_dir: Path) -> Self:
        """Reads both files; generation_config.json may be missing, and goes before config.json where both speak.

        Raises:
            CheckpointError: config.json is missing, or a value in either cannot be used.
        """
        config = read_json_file(model_dir / "config.json", required=True)
        generation = read_json_file(model_dir / "generation_config.json", required=False)
        eos = generation.get("eos_token_id")
        return cls(
            num_embeddings=_positive_int(config, "vocab_size", model_dir),
            context_length=_positive_int(config, "max_position_embeddings", model_dir),
            eos_token_ids=_token_ids(config.get("eos_token_id") if eos is None else eos, model_dir),
            sampling=_sampling(generation, model_dir / "generation_config.json"),
        )


def _positive_int(config: dict[str, Any], key: str, model_dir: Path) -> int | None:
    value = config.get(key)
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
        return value
    raise CheckpointError(f"{key} in {model_dir / 'config.json'} is {value!r}; it must be a positive integer")


def _token_ids(value: object, model_dir: Path) -> frozenset[int]:
    ids = [] if value is None else value if isinstance(value, list) else [value]
    if not all(isinstance(token_id, int) and token_id >= 0 for token_id in ids):
        raise CheckpointError(f"eos_token_id of {model_dir} is {value!r}; it must be a token id or a list of them")
    return frozenset(ids)


def _sampling(generation: dict[str, Any], path: Path) -> SamplingParams:
    given = {key: generation[key] for key in (*FLOAT_DEFAULTS, "top_k") if generation.get(key) is not None}
    for key, value in given.items():
        if not (isinstance(value, int | float) and math.isfinite(value)):
            raise CheckpointError(f"{key} in {path} is {value!r}; it must be a number")
    numbers: dict[str, Any] = {key: float(value) for key, value in given.items()}
    numbers["top_k"] = max(int(numbers.get("top_k", 0)), 0)  # some checkpoints say -1 for "all"
    try:
        return SamplingParams(**numbers)
    except InvalidRequestError as error:
        raise CheckpointError(f"{path}: {error.message}", param=error.param) from error
