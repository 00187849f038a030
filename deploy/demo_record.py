"""How a folder is known to be a demo model. Light to import: no torch, no transformers."""

import json
from pathlib import Path

RECORD_FILE = "baton_demo.json"
RECORD_VERSION = 1  # grows when what is built changes; folders of other versions are built anew
STATEMENT = (
    "This is SmolLM2-135M-Instruct, quantized to 4 bits and converted to the ERNIE 4.5 MoE architecture so that "
    "Baton can be tried on any machine. The 4 experts of a layer are identical copies: it answers as "
    "SmolLM2-135M-Instruct does, and says nothing about the quality of ERNIE models."
)


def write_demo_record(model_dir: Path, source: dict[str, str]) -> None:
    """Marks a folder as a demo model of this version.

    Args:
        model_dir: the checkpoint folder.
        source: where the weights come from, for whoever reads the file.
    """
    record = {"version": RECORD_VERSION, "statement": STATEMENT, "license": "Apache-2.0", "source": source}
    (model_dir / RECORD_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def demo_version(model_dir: Path) -> int | None:
    """The version of the demo model in a folder; None when it holds none."""
    try:
        version = json.loads((model_dir / RECORD_FILE).read_text(encoding="utf-8"))["version"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return version if isinstance(version, int) else None


def is_current_demo(model_dir: Path) -> bool:
    """Whether a folder holds a demo model as this version of Baton builds it."""
    return demo_version(model_dir) == RECORD_VERSION
