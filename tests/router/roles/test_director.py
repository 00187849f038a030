"""What operators order: carried out, followed until proven, refused with a reason."""

import asyncio
import logging

import pytest
import pytest_asyncio

from core.errors import DeadlineError, InvalidRequestError, StaleEpochError, UnavailableError
from core.request import Role
from core.roles import RoleState
from router.roles.changes import CONTROLLER, RoleStage
from router.roles.decision import Decision, Flip
from router.roles.leadership import LEASE
from router.roles.open_change import ANSWER_TIMEOUT_S, PROOF_TIMEOUT_S
from tests.router.builders import generation_request
from tests.router.dispatch.bench import token
from tests.router.roles.world import NOW, RoleWorld, Watching, worker


@pytest_asyncio.fixture
async def world() -> RoleWorld:
    return RoleWorld(worker("p", Role.PREFILL), worker("d0", Role.DECODE), worker("d1", Role.DECODE))


async def test_role_is_ordered_pinned_and_verified_by_what_the_worker_executes(world: RoleWorld) -> None:
    watching = Watching(world.director.set_role("d1", Role.PREFILL, "me"))
    await watching.until(1)
    assert world.link("d1").role_orders[0].is_pinned
    world.clock.advance(0.02)
    assert world.obey("d1") == RoleState(
        Role.PREFILL, 4, is_pinned=True, order_id=world.link("d1").role_orders[0].order_id, revision=1
    )
    await watching.until(2)
    world.clock.advance(0.03)
    world.report("d1", epoch_prompt_tokens=64, epoch_first_work_s=0.01)
    last = await watching.to_the_end()
    assert [each.stage for each in watching.told] == [
        RoleStage.ORDERED,
        RoleStage.CHANGED,
        RoleStage.VERIFIED,
        RoleStage.VERIFIED,
    ]
    assert last.change is not None
    assert (last.change.before, last.change.after, last.change.actor) == (Role.DECODE, Role.PREFILL, "me")
    assert last.change.changed_s == pytest.approx(0.02)
    assert last.change.first_work_s == pytest.approx(0.03)  # the order was there after 0.02 s
    assert last.change.verified_s == pytest.approx(0.05)
    assert world.director.changes() == [last.change]
    assert world.director.actions()[0].action == "set d1 prefill"
    assert (world.director.actions()[0].at, world.director.actions()[0].outcome) == (NOW, "done")


async def test_label_alone_verifies_nothing(world: RoleWorld) -> None:
    watching = Watching(world.director.set_role("d1", Role.PREFILL, "me"))
    await watching.until(1)
    world.obey("d1")
    world.report("d1", epoch_decode_tokens=9, epoch_steps=9)
    world.pass_time(4.0)
    last = await watching.to_the_end()
    assert (last.stage, last.message) == (
        RoleStage.CHANGED,
        "in the new role; there is no work yet to verify it with",
    )
    assert world.director.alarms() == []


async def test_worker_that_has_work_and_executes_none_raises_an_alarm(world: RoleWorld) -> None:
    watching = Watching(world.director.set_role("d1", Role.PREFILL, "me"))
    await watching.until(1)
    world.obey("d1")
    world.report("d1", pending_prompt_tokens=100, epoch_decode_tokens=50)
    world.pass_time(PROOF_TIMEOUT_S + 1.0)
    last = await watching.to_the_end()
    assert last.stage is RoleStage.FAILED
    assert "the change to prefill changed nothing" in last.message
    assert world.director.alarms() == [f"worker d1@1: {last.change.message}"]  # type: ignore[union-attr]
    world.report("d1", epoch_prompt_tokens=3)
    assert world.director.alarms() == []


async def test_change_is_verified_only_when_nothing_of_the_old_role_is_left(world: RoleWorld) -> None:
    generation = world.dispatcher.submit(generation_request("r", max_tokens=40))
    work, here = generation.placement.assignment, generation.placement.decode
    name = here.worker.name
    world.report("p", token(work, 0))
    world.report(name, token(work, 1))
    watching = Watching(world.director.set_role(name, Role.PREFILL, "me"))
    await watching.until(1)
    world.obey(name)
    world.report(name, epoch_prompt_tokens=5)
    await watching.until(2)
    assert (watching.told[-1].stage, watching.told[-1].num_leaving) == (RoleStage.CHANGED, 1)
    generation.cancel()
    world.report(name, epoch_prompt_tokens=5)
    assert (await watching.to_the_end()).stage is RoleStage.VERIFIED


async def test_order_of_somebody_who_stops_watching_goes_on(world: RoleWorld) -> None:
    watching = Watching(world.director.set_role("d1", Role.PREFILL, "me"))
    await watching.until(1)
    watching.task.cancel()
    await asyncio.gather(watching.task, return_exceptions=True)
    world.obey("d1")
    world.report("d1", epoch_prompt_tokens=1)
    assert world.director.changes()[0].stage is RoleStage.VERIFIED


async def test_pin_is_lifted_without_a_change(world: RoleWorld) -> None:
    pinning = Watching(world.director.set_role("d1", Role.DECODE, "me"))
    await asyncio.sleep(0)
    assert world.obey("d1").is_pinned
    await pinning.to_the_end()
    lifting = Watching(world.director.set_role("d1", None, "me"))
    await asyncio.sleep(0)
    assert not world.obey("d1").is_pinned
    assert "no longer pinned" in (await lifting.to_the_end()).message
    assert world.link("d1").role_state.epoch == 3
    assert world.director.changes() == []


async def test_refusal_of_the_worker_is_the_orders_end(world: RoleWorld) -> None:
    watching = Watching(world.director.set_role("d1", Role.PREFILL, "me"))
    await watching.until(1)
    world.refuse("d1", "it is at epoch 9")
    with pytest.raises(StaleEpochError, match="worker d1@1 refuses: it is at epoch 9"):
        await watching.to_the_end()
    assert world.link("d1").takes(Role.DECODE)
    assert world.director.changes()[0].stage is RoleStage.FAILED
    assert world.director.alarms() == []
    assert world.director.actions()[0].outcome == "refused: worker d1@1 refuses: it is at epoch 9"


async def test_worker_that_does_not_answer_gets_work_again(world: RoleWorld) -> None:
    watching = Watching(world.director.set_role("d1", Role.PREFILL, "me"))
    await watching.until(1)
    assert not world.link("d1").takes(Role.DECODE)
    world.pass_time(ANSWER_TIMEOUT_S)
    with pytest.raises(DeadlineError, match="has not answered within 10 s"):
        await watching.to_the_end()
    assert world.link("d1").takes(Role.DECODE)
    assert len(world.director.alarms()) == 1
    world.lose(world.link("d1"))
    assert world.director.alarms() == []


async def test_lost_worker_ends_its_change(world: RoleWorld) -> None:
    watching = Watching(world.director.set_role("d1", Role.PREFILL, "me"))
    await watching.until(1)
    world.lose(world.link("d1"))
    with pytest.raises(UnavailableError, match="was lost before it had answered"):
        await watching.to_the_end()
    assert world.director.changes()[0].stage is RoleStage.FAILED


async def test_restarted_worker_is_ordered_to_be_what_it_was(world: RoleWorld) -> None:
    await Watching(world.director.set_role("d1", Role.PREFILL, "me")).until(1)
    world.obey("d1")
    world.lose(world.link("d1"))
    world.attach(worker("d1", Role.DECODE, incarnation=2))
    order = world.link("d1").role_orders[0]
    assert (order.role, order.is_pinned) == (Role.PREFILL, True)
    assert world.director.changes()[0].actor == CONTROLLER


@pytest.mark.parametrize(
    ("worker_name", "options", "error", "message"),
    [
        ("x", {}, InvalidRequestError, "no worker 'x' is attached; there are: d0, d1, p"),
        ("p", {}, InvalidRequestError, "worker p is the last that computes prompts"),
        ("d0", {"epoch": 2}, StaleEpochError, "role epoch 2 of worker d0, which is at 3 now"),
        ("d0", {"incarnation": 7}, StaleEpochError, "worker d0@7 is gone; there is d0@1 now"),
    ],
)
async def test_order_that_cannot_be_carried_out_changes_nothing_and_is_in_the_audit_log(
    world: RoleWorld, worker_name: str, options: dict[str, int], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        await anext(world.director.set_role(worker_name, Role.DECODE, "me", **options))
    assert all(link.role_orders == [] for link in world.fleet.members)
    action = world.director.actions()[0]
    assert (action.actor, action.action) == ("me", f"set {worker_name} decode")
    assert action.outcome.startswith("refused: ")


async def test_second_operator_is_refused_while_the_first_order_is_not_answered(world: RoleWorld) -> None:
    await Watching(world.director.set_role("d1", Role.PREFILL, "me")).until(1)
    with pytest.raises(StaleEpochError, match="has not answered an order yet that makes it prefill"):
        await anext(world.director.set_role("d1", Role.MIXED, "you"))
    assert len(world.link("d1").role_orders) == 1


async def test_rebalance_changes_as_few_as_possible_and_pins_all(world: RoleWorld) -> None:
    watching = Watching(world.director.rebalance(2, 1, "me"))
    await watching.until(1)
    roles = {
        link.worker.name: (link.role_orders[0].role, link.role_orders[0].is_pinned) for link in world.fleet.links()
    }
    changed = watching.told[0].worker
    assert sorted(role for role, _ in roles.values()) == [Role.DECODE, Role.PREFILL, Role.PREFILL]
    assert roles[changed] == (Role.PREFILL, True)
    for name in roles:
        world.obey(name)
    world.report(changed, epoch_prompt_tokens=1)
    assert (await watching.to_the_end()).stage is RoleStage.VERIFIED


async def test_dry_run_says_what_would_change_and_orders_nothing(world: RoleWorld) -> None:
    watching = Watching(world.director.rebalance(2, 1, "me", is_dry_run=True))
    assert (await watching.to_the_end()).message == "1 change(s) would do it"
    assert "would go from decode to prefill" in watching.told[0].message
    assert all(link.role_orders == [] for link in world.fleet.members)


async def test_drain_ends_when_nothing_is_left_and_uncordon_lifts_it(world: RoleWorld) -> None:
    generation = world.dispatcher.submit(generation_request("r", max_tokens=40))
    name = generation.placement.decode.worker.name
    work = generation.placement.assignment
    watching = Watching(world.director.drain(name, "me"))
    await asyncio.sleep(0)
    world.obey(name)
    await watching.until(1)
    assert watching.told[0].num_leaving == 1
    other = world.dispatcher.submit(generation_request("s"))
    assert other.placement.decode.worker.name != name
    world.report("p", token(work, 0))
    generation.cancel()
    assert (await watching.to_the_end()).message == f"{name} is drained: nothing of this router is left there"
    lifting = asyncio.ensure_future(world.director.uncordon(name, "me"))
    await asyncio.sleep(0)
    assert world.obey(name).takes(Role.DECODE)
    await lifting


@pytest.mark.parametrize(("how", "message"), [("let in", "was let in again"), ("lost", "was lost")])
async def test_drain_that_somebody_or_something_ends_has_failed(world: RoleWorld, how: str, message: str) -> None:
    generation = world.dispatcher.submit(generation_request("r", max_tokens=40))
    name = generation.placement.decode.worker.name
    watching = Watching(world.director.drain(name, "me"))
    await asyncio.sleep(0)
    world.obey(name)
    await watching.until(1)
    if how == "lost":
        world.lose(world.link(name))
    else:
        lifting = asyncio.ensure_future(world.director.uncordon(name, "you"))
        await asyncio.sleep(0)
        world.obey(name)
        await lifting
    last = await watching.to_the_end()
    assert (last.stage, last.message) == (RoleStage.FAILED, f"{name} {message} while it was being drained")


@pytest.mark.parametrize("order", ["drain", "pin"])
async def test_operator_who_leaves_before_the_answer_harms_nobody(world: RoleWorld, order: str) -> None:
    if order == "drain":
        watching = Watching(world.director.drain("d1", "me"))
    else:
        watching = Watching(world.director.set_role("d1", Role.DECODE, "me"))
    await asyncio.sleep(0)
    watching.task.cancel()
    await asyncio.gather(watching.task, return_exceptions=True)
    world.obey("d1")
    await asyncio.sleep(0.01)
    assert [(each.action.split()[0], each.outcome) for each in world.director.actions()] == [
        ({"drain": "drain", "pin": "set"}[order], "done")
    ]


async def test_half_is_not_left_alone_by_two_orders_at_once() -> None:
    world = RoleWorld(worker("p0", Role.PREFILL), worker("p1", Role.PREFILL), worker("d", Role.DECODE))
    await Watching(world.director.set_role("p0", Role.DECODE, "me")).until(1)
    with pytest.raises(InvalidRequestError, match="worker p1 is the last that computes prompts"):
        await anext(world.director.set_role("p1", Role.DECODE, "you"))
    with pytest.raises(InvalidRequestError, match="worker p1 is the last that computes prompts"):
        await anext(world.director.drain("p1", "you"))


async def test_watcher_of_a_change_that_another_one_replaces_is_told(world: RoleWorld) -> None:
    watching = Watching(world.director.set_role("d1", Role.PREFILL, "me"))
    await watching.until(1)
    world.obey("d1")
    world.report("d1", pending_prompt_tokens=9)
    await watching.until(2)
    await Watching(world.director.set_role("d1", Role.DECODE, "you")).until(1)
    last = await watching.to_the_end()
    assert (last.stage, "another change came" in last.message) == (RoleStage.FAILED, True)
    world.obey("d1")


async def test_log_takes_no_line_ends_and_no_books(world: RoleWorld) -> None:
    with pytest.raises(InvalidRequestError):
        await anext(world.director.set_role("x" * 1_000_000, Role.DECODE, "me\nroot: drain all: done"))
    action = world.director.actions()[0]
    assert action.actor == "me root: drain all: done"
    assert max(len(action.action), len(action.outcome)) <= 300


async def test_last_worker_of_a_half_is_not_drained(world: RoleWorld) -> None:
    with pytest.raises(InvalidRequestError, match="worker p is the last that computes prompts"):
        await anext(world.director.drain("p", "me"))


async def test_unanswered_drain_is_told(world: RoleWorld) -> None:
    for outcome, error in (("refuse", StaleEpochError), ("silence", DeadlineError), ("loss", UnavailableError)):
        watching = Watching(world.director.drain("d1", "me"))
        await asyncio.sleep(0)
        if outcome == "refuse":
            world.refuse("d1")
        elif outcome == "silence":
            world.pass_time(ANSWER_TIMEOUT_S)
        else:
            world.lose(world.link("d1"))
        with pytest.raises(error):
            await watching.to_the_end()
        await asyncio.sleep(0)
        noted = world.director.actions()[0].outcome
        assert noted.startswith("refused: " if error is StaleEpochError else "failed: ")


async def test_operators_actions_are_in_the_process_log(world: RoleWorld, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "baton.audit"):
        await world.director.set_auto("me", is_auto=False)
    assert caplog.messages == ["me: auto off: done"]
    assert not world.director.is_auto


# --- the controller's


def flip(name: str, role: Role) -> Decision:
    return Decision(0.0, "prompts wait", 1, 2, 2, 1, flips=(Flip(name, role),))


async def test_decision_is_carried_out_and_kept_with_its_reason(world: RoleWorld) -> None:
    world.controller.decisions = [flip("d1", Role.PREFILL)]
    await world.autopilot.tick()
    order = world.link("d1").role_orders[0]
    assert (order.role, order.is_pinned) == (Role.PREFILL, False)
    assert world.director.decisions()[0].reason == "prompts wait"
    change = world.director.changes()[0]
    assert (change.actor, change.reason) == (CONTROLLER, "prompts wait")
    world.obey("d1")


async def test_pin_wins_over_the_controller(world: RoleWorld) -> None:
    await Watching(world.director.set_role("d1", Role.PREFILL, "me")).until(1)
    world.obey("d1")
    world.controller.decisions = [flip("d1", Role.DECODE)]
    await world.autopilot.tick()
    assert world.link("d1").role_state.role is Role.PREFILL
    assert world.link("d1").order is None
    assert {view.name: view.is_pinned for view in world.controller.seen[0].workers} == {
        "d0": False,
        "d1": True,
        "p": False,
    }


@pytest.mark.parametrize("why_not", ["off", "not the leader"])
async def test_controller_that_is_not_to_decide_does_not(world: RoleWorld, why_not: str) -> None:
    if why_not == "off":
        await world.director.set_auto("me", is_auto=False)
    else:
        await world.store.hold_lease(LEASE, "another router", 60.0)
    world.controller.decisions = [flip("d1", Role.PREFILL)]
    await world.autopilot.tick()
    assert (world.controller.seen, world.link("d1").role_orders) == ([], [])


async def test_snapshot_says_what_the_router_knows(world: RoleWorld) -> None:
    world.dispatcher.submit(generation_request("r"))
    world.report("p", queued_prompts=2, pending_prompt_tokens=70)
    await world.autopilot.tick()
    (seen,) = world.controller.seen
    prefill = next(view for view in seen.workers if view.name == "p")
    assert (prefill.queued_prompts, prefill.pending_prompt_tokens, prefill.kv_tokens) == (2, 70, 4000)
    decode = next(view for view in seen.workers if view.running_sequences)
    assert (decode.running_sequences, decode.context_tokens, decode.is_changing) == (1, 3, False)


async def test_routers_that_cannot_agree_are_an_alarm_until_they_can(
    world: RoleWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise UnavailableError("the state store redis://far/0 is away")

    with monkeypatch.context() as patch:
        patch.setattr(world.store, "hold_lease", fail)
        await world.autopilot.tick()
    assert world.director.alarms() == ["routers cannot agree on who decides: the state store redis://far/0 is away"]
    await world.autopilot.tick()
    assert world.director.alarms() == []
