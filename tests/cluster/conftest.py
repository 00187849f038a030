from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.free_port import free_port
from tests.byte_tokenizer import BYTE_EOS, NUM_BYTE_TOKENS, write_byte_tokenizer
from tests.cluster.served import ServedCluster, serve
from tests.engine.checkpoints import write_tiny_moe


def free_ports() -> int:
    """A port for HTTP whose successor is free for gRPC."""
    return free_port("127.0.0.1", 2)


@pytest.fixture(scope="session")
def demo_cluster(demo_model_dir: Path) -> Iterator[ServedCluster]:
    """One prefill and one decode worker with the demo model, in float32 so that answers can be compared."""
    assert demo_model_dir.is_dir()
    cluster = serve(free_ports(), "--dtype", "float32", "--no-auto-roles")
    yield cluster
    cluster.close()


@pytest.fixture(scope="session")
def tiny_text_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random ERNIE MoE model over bytes: a few milliseconds per step."""
    folder = tmp_path_factory.mktemp("tiny-text-model")
    write_tiny_moe(folder, vocab_size=NUM_BYTE_TOKENS, eos_token_id=BYTE_EOS, max_position_embeddings=2048)
    write_byte_tokenizer(folder)
    return folder


@pytest.fixture(scope="session")
def wide_cluster(tiny_text_model_dir: Path) -> Iterator[ServedCluster]:
    """Two prefill and two decode workers with a tiny model and little room for KV."""
    flags = ("--model", str(tiny_text_model_dir), "--served-model-name", "tiny", "--dtype", "float32")
    sizes = (
        "--prefill",
        "2",
        "--decode",
        "2",
        "--kv-cache-gb",
        "0.02",
        "--max-num-seqs",
        "8",
        "--ask",
        "",
        "--no-auto-roles",
    )
    cluster = serve(free_ports(), *flags, *sizes)
    yield cluster
    cluster.close()


@pytest.fixture(scope="session")
def even_text_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `tiny_text_model_dir`, with a vocabulary that two ranks can share."""
    folder = tmp_path_factory.mktemp("even-text-model")
    write_tiny_moe(folder, vocab_size=NUM_BYTE_TOKENS + 1, eos_token_id=BYTE_EOS, max_position_embeddings=2048)
    write_byte_tokenizer(folder)
    return folder


@pytest.fixture(scope="session")
def shard_cluster(even_text_model_dir: Path) -> Iterator[ServedCluster]:
    """One prefill and one decode worker of two ranks each, whose blocks differ in size."""
    flags = ("--model", str(even_text_model_dir), "--served-model-name", "tiny", "--dtype", "float32", "--ask", "")
    sizes = ("--tensor-parallel-size", "2", "--kv-cache-gb", "0.02", "--decode-block-size", "64", "--no-auto-roles")
    cluster = serve(free_ports(), *flags, *sizes)
    yield cluster
    cluster.close()
