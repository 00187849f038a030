from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from core.request import Role
from tests.engine.checkpoints import write_tiny_moe
from worker.config import WorkerConfig
from worker.process import WorkerProcess

BLOCK_BYTES = 4 * 1024  # of the tiny model: 1 KiB for each of 4 tokens


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Costs measured beside other tests are of no use to anybody."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random checkpoint in float32. Tests only read it."""
    return write_tiny_moe(tmp_path_factory.mktemp("tiny-moe"))


@pytest.fixture(scope="session")
def start_worker(tiny_model_dir: Path) -> Iterator[Callable[[str, Role], WorkerProcess]]:
    """Starts workers in this process, over real gRPC and NIXL; all are stopped at the end."""
    with ExitStack() as stack:

        def start(name: str, role: Role) -> WorkerProcess:
            config = WorkerConfig(
                name=name,
                role=role,
                model_dir=tiny_model_dir,
                block_size=4,
                kv_cache_gb=256 * BLOCK_BYTES / 2**30,
                max_model_len=256,
                max_num_seqs=4,
                max_num_batched_tokens=16,
            )
            process = WorkerProcess(config)
            stack.callback(process.stop)
            return process

        yield start


@pytest.fixture(scope="session")
def prefill(start_worker: Callable[[str, Role], WorkerProcess]) -> WorkerProcess:
    return start_worker("prefill-0", Role.PREFILL)


@pytest.fixture(scope="session")
def decode(start_worker: Callable[[str, Role], WorkerProcess]) -> WorkerProcess:
    return start_worker("decode-0", Role.DECODE)
