from pathlib import Path

import pytest

from core.errors import CheckpointError, ConfigError
from engine.config import ModelConfig
from engine.sizing import blocks_in, kv_layout, serving_dtype
from tests.engine.conftest import Served


def test_layout_is_that_of_the_pool(moe: Served) -> None:
    layout = kv_layout(moe.engine.config, 16, "float32")
    assert layout == moe.engine.pool.layout
    tensor = moe.engine.pool.tensor
    assert layout.block_bytes == tensor[0].numel() * tensor.element_size()


@pytest.mark.parametrize(("num_blocks", "extra_bytes"), [(0, 0), (0, 5), (3, 0), (3, 5)])
def test_blocks_fill_the_bytes_given(moe: Served, num_blocks: int, extra_bytes: int) -> None:
    layout = moe.engine.pool.layout
    assert blocks_in(layout, num_blocks * layout.block_bytes + extra_bytes) == num_blocks


def test_no_blocks_in_negative_bytes(moe: Served) -> None:
    assert blocks_in(moe.engine.pool.layout, -1) == 0


def test_serving_dtype_is_the_one_asked_for_or_the_saved_one(moe: Served) -> None:
    assert serving_dtype("auto", moe.engine.config) == "float32"
    assert serving_dtype("bfloat16", moe.engine.config) == "bfloat16"


def test_unknown_dtype_is_named(moe: Served) -> None:
    with pytest.raises(ConfigError, match="dtype is 'int4'"):
        serving_dtype("int4", moe.engine.config)


def test_auto_without_a_saved_dtype_is_refused(moe: Served, tmp_path: Path) -> None:
    config = (moe.model_dir / "config.json").read_text().replace('"dtype"', '"former_dtype"')
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(CheckpointError, match="no dtype"):
        serving_dtype("auto", ModelConfig.from_dir(tmp_path))
