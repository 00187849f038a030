"""What the ranks of a worker are told; that they start and are started again is in `tests/cluster`."""

from dataclasses import replace
from pathlib import Path

import pytest

from core.clock import ManualClock
from core.members import MemberState
from core.request import Role
from deploy import ray_members
from deploy.cores import Seat
from deploy.ray_members import PLACEMENT_TIMEOUT_S, RayWorker, actor_options, rank_settings
from deploy.ray_nodes import NodeFacts, RayNodes
from deploy.ray_session import RaySession
from engine.parallel.topology import ShardTopology
from worker.config import WorkerConfig


def test_ranks_of_a_worker_differ_in_number_and_cores_only(tmp_path: Path) -> None:
    worker = WorkerConfig(
        "decode-0", Role.DECODE, tmp_path, topology=ShardTopology(2, 2), node="n", min_incarnation=7
    )
    ranks = rank_settings(worker, NodeFacts("10.0.0.1", tuple(range(8))), Seat(2, 4))
    assert [(rank.rank, rank.cpu_ids) for rank in ranks] == [(0, (4, 5)), (1, (6, 7))]
    assert [rank.rank_name for rank in ranks] == ["rank 0 of decode-0", "rank 1 of decode-0"]
    assert {replace(rank, rank=0, cpu_ids=()) for rank in ranks} == {replace(worker, host="10.0.0.1")}


def test_actors_of_two_clusters_and_of_two_starts_have_names_of_their_own_and_ray_restarts_none() -> None:
    sessions = [RaySession(f"baton-{number}", "n", "h", Path(), is_own=False) for number in range(2)]
    options = [actor_options("decode-0", start, session) for session in sessions for start in (1, 2)]
    assert len({(each["namespace"], each["name"]) for each in options}) == 4
    assert {each["max_restarts"] for each in options} == {0}


class NoRoom:
    """A place that is gone, and no other one."""

    def __init__(self, _config: WorkerConfig) -> None:
        pass

    def node(self) -> None:
        return None

    def lack(self) -> str:
        return "no node has room"

    def close(self) -> None:
        pass


def test_worker_that_lost_its_room_waits_for_ever_but_at_its_first_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()
    monkeypatch.setattr(ray_members, "Room", NoRoom)
    monkeypatch.setattr(ray_members.time, "monotonic", clock.now_s)
    session = RaySession("baton-1", "n", "h", Path(), is_own=False)
    worker = RayWorker(WorkerConfig("decode-0", Role.DECODE, tmp_path), session, RayNodes(session, tmp_path))
    for expected in (MemberState.ENDING, MemberState.STARTING):
        worker.start()
        clock.advance(PLACEMENT_TIMEOUT_S)
        assert worker.look().state is MemberState.STARTING
        clock.advance(1.0)
        sight = worker.look()
        assert (sight.state, str(sight.error)) == (expected, "no node has room")
        assert worker.end()
