"""Finds a model that is to be planned: a folder, or one of the published ones."""

from pathlib import Path

from core.errors import CheckpointError
from deploy.planning.presets import preset_names, preset_path


def find_model(model: str) -> tuple[Path | None, Path]:
    """The model's folder, which a published model has none of, and its config.json.

    Raises:
        CheckpointError: there is neither.
    """
    model_dir = Path(model)
    if model_dir.is_dir():
        return model_dir, model_dir / "config.json"
    if (preset := preset_path(model)) is not None:
        return None, preset
    names = ", ".join(preset_names())
    raise CheckpointError(
        f"{model_dir} is not a folder; pass the folder of a Hugging Face checkpoint, or one of {names}"
    )
