"""A rank's actor without Ray: what it says of its start, and when it ends its process to be started again."""

import threading
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from core.errors import CheckpointError, UnavailableError
from core.request import Role
from deploy import actors
from deploy.actors import RankActor
from engine.parallel.topology import ShardTopology
from worker.config import WorkerConfig

TIMEOUT_S = 30.0


@dataclass
class Host:
    """Starts nothing; rank 0 of a group does not come up here."""

    is_again: bool = False
    asked: threading.Event = field(default_factory=threading.Event)

    def node(self) -> str:
        return "node-1"

    def is_restarted(self) -> bool:
        return self.is_again

    def leader_store_address(self) -> str:
        self.asked.set()
        raise UnavailableError("rank 0 of w-0 did not come up")


@pytest.fixture
def config(tmp_path: Path) -> WorkerConfig:
    """A worker whose model folder is empty."""
    return WorkerConfig("w-0", Role.DECODE, tmp_path)


@pytest.fixture
def died(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    died = threading.Event()
    monkeypatch.setattr(actors, "die", died.set)
    monkeypatch.setattr(actors, "configure_logging", lambda *_: None)
    return died


def test_first_start_that_fails_says_why_and_stays(config: WorkerConfig, died: threading.Event) -> None:
    actor = RankActor(config, Host())
    assert isinstance(actor.ready(), CheckpointError)
    assert actor._config.node == "node-1"
    actor.stop()
    assert not died.is_set()


def test_later_start_that_fails_is_tried_again(config: WorkerConfig, died: threading.Event) -> None:
    """Nobody asks how it went."""
    RankActor(config, Host(is_again=True))
    assert died.wait(TIMEOUT_S)


def test_rank_that_does_not_find_its_leader_is_started_again(config: WorkerConfig, died: threading.Event) -> None:
    host = Host()
    RankActor(replace(config, topology=ShardTopology(2, 1), rank=1), host)
    assert died.wait(TIMEOUT_S)
    assert host.asked.is_set()
