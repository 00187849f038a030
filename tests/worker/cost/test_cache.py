import json
import logging
from dataclasses import fields, replace
from pathlib import Path

import pytest

from engine.engine import Engine
from tests.builders import cost_model
from worker.cost.cache import CostKey, code_digest, load_cost, save_cost

MODEL = cost_model()


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.fixture
def key(engine: Engine) -> CostKey:
    return CostKey.of(engine, chunk_tokens=512, max_num_seqs=64)


def test_saved_model_is_loaded_under_the_same_key(key: CostKey, tmp_path: Path) -> None:
    save_cost(key, MODEL)
    assert load_cost(replace(key)) == MODEL
    assert [path.parent for path in tmp_path.rglob("*.json")] == [tmp_path / "baton" / "cost"]
    assert json.loads(key.path.read_text())["key"]["device"] == key.device


def test_later_model_replaces_the_earlier_one(key: CostKey, tmp_path: Path) -> None:
    save_cost(key, cost_model(slowness=2.0))
    save_cost(key, MODEL)
    assert load_cost(key) == MODEL
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


def test_nothing_saved_is_a_miss_without_a_word(key: CostKey, caplog: pytest.LogCaptureFixture) -> None:
    assert load_cost(key) is None
    assert not caplog.records


@pytest.mark.parametrize("name", [field.name for field in fields(CostKey)])
def test_other_value_of_any_part_of_the_key_is_a_miss(key: CostKey, name: str) -> None:
    save_cost(key, MODEL)
    value = getattr(key, name)
    assert load_cost(replace(key, **{name: value + 1 if isinstance(value, int) else f"{value}-2"})) is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"model": {}}', b'{"model": 3}', b"\xff"])
def test_file_that_cannot_be_read_is_a_miss_that_is_logged(
    key: CostKey, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    save_cost(key, MODEL)
    key.path.write_bytes(content)
    assert load_cost(key) is None
    assert str(key.path) in caplog.text
    save_cost(key, MODEL)
    assert load_cost(key) == MODEL


def test_folder_that_cannot_be_written_is_only_logged(
    key: CostKey, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "baton").write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        save_cost(key, MODEL)
    assert "not kept for the next start" in caplog.text


def test_code_digest_is_that_of_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert code_digest() == code_digest()
    source = tmp_path / "kernel.cpp"
    monkeypatch.setattr("worker.cost.cache.engine_package.__path__", [str(tmp_path)])
    source.write_text("one")
    first = code_digest()
    source.write_text("two")
    assert code_digest() != first
