import json
import math
from dataclasses import asdict, replace

from core.events import WorkerLoad
from core.ids import WorkerId
from core.request import Role
from core.roles import RoleState
from core.transfers import PairReport, PairStats, TransferReport
from router.dashboard.state import HISTORY_S, PairTotals
from router.roles.changes import CONTROLLER, RoleStage
from router.roles.decision import Decision
from tests.router.builders import LIMITS, generation_request
from tests.router.dashboard.fakes import DashboardWorld, members
from tests.router.dispatch.bench import token
from tests.router.roles.world import NOW, Watching


def test_empty_fleet_is_a_state_too() -> None:
    state = DashboardWorld().source.build()
    assert (state.at, state.model, state.limits, state.is_auto) == (NOW, "tiny", LIMITS, True)
    assert (state.workers, state.pairs, state.changes, state.alarms, state.actions) == ([], [], [], [], [])
    assert state.decision is None


def test_card_joins_what_a_worker_reports_and_what_it_is_for() -> None:
    world = DashboardWorld(*members())
    link = world.fleet.links()[2]
    world.be("worker-2", RoleState(Role.MIXED, 7, is_cordoned=True, is_pinned=True))
    world.clock.advance(90.0)
    link.load = WorkerLoad(
        queued_prompts=3, pending_prompt_tokens=99, running_sequences=5, blocks_total=100, blocks_free=50,
        blocks_cached=10, blocks_running=30, blocks_leased=8, blocks_quarantined=2,
        prompt_tokens_computed=1000, decode_tokens_computed=400,
        migrations_open=1, migrations_sent=5, migrations_failed=2, migration_longest_pause_s=0.03,
    )  # fmt: skip
    card = world.source.build().workers[2]
    assert (card.name, card.incarnation, card.epoch, card.role) == ("worker-2", 1, 7, Role.MIXED)
    assert (card.is_cordoned, card.is_pinned, card.is_changing, card.since_s) == (True, True, False, 90.0)
    assert (card.queued_prompts, card.pending_prompt_tokens, card.running_sequences, card.max_num_seqs) == (
        3,
        99,
        5,
        8,
    )
    assert (card.kv_blocks, card.kv_blocks_used, card.kv_blocks_cached) == (100, 40, 10)
    assert (card.migrations_open, card.migrations_sent, card.migrations_failed) == (1, 5, 2)
    assert card.migration_longest_pause_s == 0.03
    assert (card.prompt_tokens_computed, card.decode_tokens_computed, card.silent_s) == (1000, 400, 0.25)


def is_changing(world: DashboardWorld, name: str) -> bool:
    (card,) = (card for card in world.source.build().workers if card.name == name)
    return card.is_changing


async def test_idle_worker_is_changing_until_it_has_answered() -> None:
    world = DashboardWorld(*members())
    assert not is_changing(world, "worker-3")
    await Watching(world.director.set_role("worker-3", Role.PREFILL, "me")).until(1)
    assert is_changing(world, "worker-3")
    world.obey("worker-3")
    world.report("worker-3")
    assert world.director.changes()[0].stage is RoleStage.CHANGED
    assert not is_changing(world, "worker-3")


async def test_worker_is_changing_while_requests_still_leave_it() -> None:
    world = DashboardWorld(*members())
    generation = world.dispatcher.submit(generation_request(max_tokens=40))
    placement = generation.placement
    name = placement.decode.worker.name
    world.report(placement.prefill.worker.name, token(placement.assignment, 0))
    world.report(name, token(placement.assignment, 1))
    await Watching(world.director.set_role(name, Role.PREFILL, "me")).until(1)
    world.obey(name)
    assert is_changing(world, name)
    generation.cancel()
    assert not is_changing(world, name)


async def test_worker_that_refuses_is_not_changing() -> None:
    world = DashboardWorld(*members())
    await Watching(world.director.set_role("worker-3", Role.PREFILL, "me")).until(1)
    world.refuse("worker-3")
    assert not is_changing(world, "worker-3")


def test_pairs_are_totals_of_what_each_worker_has_sent() -> None:
    world = DashboardWorld(*members())
    stats = PairStats(num_handoffs=4, num_bytes=5000, failures={"peer_lost": 1, "kv_corrupt": 2})
    world.fleet.links()[0].transfers = TransferReport((PairReport(WorkerId("worker-2", 1), "push", stats),))
    assert world.source.build().pairs == [PairTotals("worker-0", "worker-2", 4, 5000, 3)]


def test_changes_are_those_of_the_last_hour() -> None:
    world = DashboardWorld(*members())
    world.now_at = NOW - HISTORY_S - 1
    world.flip("worker-0", Role.DECODE, CONTROLLER, "long ago")
    world.now_at = NOW
    world.flip("worker-0", Role.PREFILL, CONTROLLER, "now")
    assert [change.reason for change in world.source.build().changes] == ["now"]


async def test_marks_differ_with_a_role_its_change_an_alarm_and_the_mode_only() -> None:
    world = DashboardWorld(*members())
    marks = world.source.role_marks()
    world.fleet.links()[0].load = WorkerLoad(queued_prompts=1)
    assert world.source.role_marks() == marks
    seen = [marks]
    world.flip("worker-0", Role.DECODE, CONTROLLER, "")
    seen.append(world.source.role_marks())
    world.director.past_changes = [replace(world.director.past_changes[0], stage=RoleStage.FAILED)]
    seen.append(world.source.role_marks())
    world.director.other_alarms = ["a flip changed nothing"]
    seen.append(world.source.role_marks())
    await world.director.set_auto("me", is_auto=False)
    seen.append(world.source.role_marks())
    assert all(seen[i] != seen[j] for i in range(5) for j in range(i))


def test_state_is_json_with_plain_words() -> None:
    world = DashboardWorld(*members())
    world.flip("worker-0", Role.DECODE, CONTROLLER, "more answers")
    numbers = {"ttft_s": 0.5, "worst_s": math.inf}
    world.director.past_decisions = [Decision(1.0, "predicted", 2, 2, 1, 3, numbers=numbers)]
    state = json.loads(json.dumps(asdict(world.source.build()), allow_nan=False))
    assert state["workers"][0]["role"] == "decode"
    assert state["changes"][0]["worker"] == {"name": "worker-0", "incarnation": 1}
    assert (state["changes"][0]["before"], state["changes"][0]["stage"]) == ("prefill", "verified")
    assert state["decision"]["numbers"] == {"ttft_s": 0.5}
