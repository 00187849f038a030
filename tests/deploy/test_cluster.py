from pathlib import Path

import pytest

from core.request import Role
from deploy.cluster import router_settings, worker_settings, worker_slots
from deploy.config import ServeConfig
from tests.byte_tokenizer import write_byte_tokenizer


@pytest.fixture
def text_model_dir(tmp_path: Path) -> Path:
    write_byte_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text('{"max_position_embeddings": 512}', encoding="utf-8")
    return tmp_path


def test_workers_stay_on_loopback_when_the_router_listens_everywhere(text_model_dir: Path) -> None:
    config = ServeConfig(model=text_model_dir, host="0.0.0.0", port=8000)  # noqa: S104 - nothing is bound here
    router = router_settings(config, text_model_dir)
    worker = worker_settings(config, router, (Role.PREFILL, 0))
    assert router.host == "0.0.0.0"  # noqa: S104
    assert (worker.host, worker.routers) == ("127.0.0.1", ("127.0.0.1:8001",))


def test_context_comes_from_the_checkpoint_unless_given(text_model_dir: Path) -> None:
    assert router_settings(ServeConfig(model=text_model_dir), text_model_dir).max_model_len == 512
    given = ServeConfig(model=text_model_dir, max_model_len=64)
    assert router_settings(given, text_model_dir).max_model_len == 64


def test_roles_alternate_so_that_neighbouring_cores_differ() -> None:
    slots = worker_slots(ServeConfig(prefill=2, decode=3))
    assert [role for role, _ in slots[:4]] == [Role.PREFILL, Role.DECODE, Role.PREFILL, Role.DECODE]
    assert slots[4] == (Role.DECODE, 2)
