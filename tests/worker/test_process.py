import threading
import time
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from core.errors import ConfigError
from core.request import Role
from router import wire
from tests.worker.conftest import BLOCK_BYTES
from tests.worker.routers import AttachedRouter
from worker.config import WorkerConfig
from worker.process import WorkerProcess


@pytest.fixture
def config(tiny_model_dir: Path) -> WorkerConfig:
    return WorkerConfig(
        "w-0", Role.DECODE, tiny_model_dir, block_size=4, kv_cache_gb=64 * BLOCK_BYTES / 2**30, max_model_len=64
    )


def test_stop_ends_streams_and_threads(config: WorkerConfig) -> None:
    before = set(threading.enumerate())
    process = WorkerProcess(config)
    router = AttachedRouter(process.endpoint.address, wire.router_hello_to_proto("router-1"))
    router.hello()
    started = {t for t in threading.enumerate() if t.name in ("control", "engine", "block-mover")} - before
    assert len(started) == 3
    process.stop()
    assert router.wait_end() is grpc.StatusCode.OK
    router.close()
    assert not any(thread.is_alive() for thread in started)


def test_worker_that_has_left_tells_its_routers_to_the_end_and_ends_the_process(
    config: WorkerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    departed = threading.Event()
    monkeypatch.setattr("worker.process.depart", departed.set)
    process = WorkerProcess(config)
    router = AttachedRouter(process.endpoint.address, wire.router_hello_to_proto("router-1"))
    assert not router.hello().role_state.is_leaving
    router.send(wire.leave_to_proto(30.0))
    assert router.wait_end() is grpc.StatusCode.OK
    assert router.states[-1].is_leaving
    assert departed.wait(30.0)
    router.close()
    process.stop()


def test_restart_is_a_later_incarnation(config: WorkerConfig) -> None:
    first = WorkerProcess(config)
    first.stop()
    second = WorkerProcess(config)
    second.stop()
    assert second.worker.supersedes(first.worker)


def test_incarnation_is_later_than_that_of_a_predecessor_whose_clock_was_ahead(config: WorkerConfig) -> None:
    ahead = time.time_ns() + 3600 * 10**9
    process = WorkerProcess(replace(config, min_incarnation=ahead))
    process.stop()
    assert process.worker.incarnation == ahead


def test_host_that_is_not_ours_is_refused_by_name(config: WorkerConfig) -> None:
    with pytest.raises(ConfigError, match=r"host is '192\.0\.2\.1'"):
        WorkerProcess(replace(config, host="192.0.2.1"))


@pytest.mark.parametrize("victim", ["loop", "mover"])
def test_thread_that_dies_ends_the_process(
    config: WorkerConfig, monkeypatch: pytest.MonkeyPatch, victim: str
) -> None:
    """A worker that only looks alive would keep getting work."""
    died = threading.Event()
    monkeypatch.setattr("worker.process.die", died.set)
    process = WorkerProcess(config)

    def defect() -> None:
        raise KeyError("defect")

    if victim == "loop":
        process._mailbox.post(defect)
    else:
        monkeypatch.setattr(process._mover._movers[0]._carrier, "progress", defect)
        process._mover.set_inbound(1)
    assert died.wait(30.0)
    process.stop()
