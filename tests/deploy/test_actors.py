"""The actors without Ray: what they say of their start and of their process."""

import inspect
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from core.errors import BatonError, CheckpointError, UnavailableError
from core.processes import RankProcess, this_process
from core.request import Role
from deploy import actors
from deploy.actors import RankActor, RouterActor
from engine.parallel.topology import ShardTopology
from router.config import RouterConfig
from worker.config import WorkerConfig

TIMEOUT_S = 30.0


@dataclass
class Host:
    """A machine where rank 0 of a group does not come up."""

    asked: threading.Event = field(default_factory=threading.Event)

    def node(self) -> str:
        return "node-1"

    def leader_store_address(self) -> str:
        self.asked.set()
        raise UnavailableError("rank 0 of w-0 did not come up")


@pytest.fixture
def config(tmp_path: Path) -> WorkerConfig:
    """A worker whose model folder is empty."""
    return WorkerConfig("w-0", Role.DECODE, tmp_path, node="node-1")


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actors, "configure_logging", lambda *_: None)
    monkeypatch.setattr(actors, "on_sigterm", lambda _: None)


def test_start_that_fails_says_why_and_stays_to_be_asked(config: WorkerConfig) -> None:
    actor = RankActor(config, Host())
    assert isinstance(actor.ready(), CheckpointError)
    actor.stop()
    actor.run()


def test_rank_that_does_not_find_its_leader_says_so(config: WorkerConfig) -> None:
    host = Host()
    outcome = RankActor(replace(config, topology=ShardTopology(2, 1), rank=1), host).ready()
    assert isinstance(outcome, UnavailableError)
    assert host.asked.is_set()


def test_rank_that_comes_up_on_another_machine_than_it_was_placed_on_does_not_serve(config: WorkerConfig) -> None:
    actor = RankActor(replace(config, node="node-2"), Host())
    with pytest.raises(UnavailableError, match="w-0 came up on node node-1, and its settings are for node-2"):
        raise actor.ready()  # type: ignore[misc] # an error, or the test fails
    assert actor.process().node == "node-1"


def test_process_is_known_whatever_becomes_of_the_start(config: WorkerConfig) -> None:
    actor = RankActor(config, Host())
    assert actor.process() == RankProcess("node-1", this_process())


def test_run_lasts_until_the_router_is_stopped(config: WorkerConfig) -> None:
    actor = RouterActor(RouterConfig(config.model_dir, "m", port=0, grpc_port=0), "router-0", "node-1")
    assert isinstance(actor.ready(), BatonError)
    running = threading.Thread(target=actor.run)
    running.start()
    assert running.is_alive()
    actor.stop()
    running.join(TIMEOUT_S)
    assert not running.is_alive()


def test_lost_calls_of_run_and_ready_keep_no_thread_from_others(
    config: WorkerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    monkeypatch.setattr(RankActor, "_start_process", lambda _self: release.wait(TIMEOUT_S) and Serving())
    actor = RankActor(config, Host())
    with ThreadPoolExecutor(4) as threads:
        lost = [threads.submit(call) for call in (actor.run, actor.ready) * 3]
        for call in lost[:-2]:
            call.result(TIMEOUT_S)
        assert not any(call.done() for call in lost[-2:])
        release.set()
        lost[-1].exception(TIMEOUT_S)
        actor.stop()


def test_actors_have_no_coroutine_methods() -> None:
    """Ray would run all calls of such an actor on one event loop, which `run` blocks."""
    for actor in (RankActor, RouterActor):
        assert not [name for name, _ in inspect.getmembers(actor, inspect.iscoroutinefunction)]


@dataclass
class Serving:
    """A rank that serves."""

    left: int = 0

    def leave(self) -> None:
        self.left += 1

    def stop(self) -> None:
        pass


def test_sigterm_has_a_worker_that_serves_leave(config: WorkerConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    departed = threading.Event()
    monkeypatch.setattr(actors, "depart", departed.set)
    serving = Serving()
    monkeypatch.setattr(RankActor, "_start_process", lambda _self: serving)
    actor = RankActor(config, Host())
    assert actor._outcome.result(TIMEOUT_S) is serving
    actor._leave()
    assert serving.left == 1
    assert not departed.is_set()
    actor.stop()
    actor._leave()
    assert departed.is_set()


def test_sigterm_ends_a_worker_that_does_not_serve_at_once(
    config: WorkerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    class DepartedError(Exception):
        pass

    def depart() -> None:
        raise DepartedError

    monkeypatch.setattr(actors, "depart", depart)
    actor = RankActor(config, Host())
    assert isinstance(actor.ready(), CheckpointError)
    with pytest.raises(DepartedError):
        actor._leave()
