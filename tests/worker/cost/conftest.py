from pathlib import Path

import pytest

from engine.engine import Engine


@pytest.fixture
def engine(tiny_model_dir: Path) -> Engine:
    """Of 64 blocks of 4 tokens."""
    return Engine.load(tiny_model_dir, block_tokens=4, num_blocks=64, max_model_len=128)
