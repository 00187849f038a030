import pytest

from core.clock import ManualClock
from core.errors import DrainingError, StaleEpochError
from core.ids import WorkerId
from core.request import Role
from core.roles import RoleOrder, RoleState
from worker.role_book import RoleBook

ME = WorkerId("w", 7)


class Heard:
    """A book, and what it has told."""

    def __init__(self, role: Role = Role.PREFILL) -> None:
        self.clock = ManualClock()
        self.changes: list[tuple[RoleState, float]] = []
        self.book = RoleBook(ME, role, self.clock, lambda state, ordered_s: self.changes.append((state, ordered_s)))


def test_change_of_role_begins_an_epoch_and_is_told_with_its_time() -> None:
    heard = Heard()
    heard.clock.advance(5.0)
    state = heard.book.order(RoleOrder("a", Role.DECODE, epoch=1, is_pinned=True))
    assert state == RoleState(Role.DECODE, 2, is_pinned=True, order_id="a", revision=1) == heard.book.state
    assert heard.changes == [(state, heard.clock.now_s())]


def test_cordon_and_pin_leave_the_epoch_so_that_work_on_its_way_is_taken() -> None:
    heard = Heard()
    state = heard.book.order(RoleOrder("a", Role.PREFILL, epoch=1, is_cordoned=True))
    assert (state.epoch, state.takes(Role.PREFILL)) == (1, False)
    heard.book.check_epoch(1)


def test_second_order_for_the_same_epoch_changes_nothing() -> None:
    heard = Heard()
    first = heard.book.order(RoleOrder("a", Role.DECODE, epoch=1))
    with pytest.raises(StaleEpochError, match=r"for role epoch 1\.0 and the worker is at 2\.1"):
        heard.book.order(RoleOrder("b", Role.MIXED, epoch=1))
    assert heard.book.state == first
    assert len(heard.changes) == 1


def test_order_that_does_not_know_of_a_pin_does_not_undo_it() -> None:
    heard = Heard()
    pinned = heard.book.order(RoleOrder("a", Role.PREFILL, epoch=1, is_pinned=True))
    with pytest.raises(StaleEpochError):
        heard.book.order(RoleOrder("b", Role.DECODE, epoch=1))
    assert heard.book.state == pinned
    assert heard.book.order(RoleOrder("c", Role.DECODE, epoch=1, revision=1)).role is Role.DECODE


@pytest.mark.parametrize("epoch", [0, 2])
def test_work_of_another_epoch_is_stale_with_both_values(epoch: int) -> None:
    with pytest.raises(StaleEpochError, match=f"role epoch {epoch} is stale; worker w@7 is at 1"):
        Heard().book.check_epoch(epoch)


@pytest.mark.parametrize(
    ("role", "halves"), [(Role.PREFILL, {"prefill"}), (Role.DECODE, {"decode"}), (Role.MIXED, {"prefill", "decode"})]
)
def test_role_takes_its_halves_unless_it_is_cordoned(role: Role, halves: set[str]) -> None:
    assert {half.value for half in (Role.PREFILL, Role.DECODE) if RoleState(role).takes(half)} == halves
    assert not RoleState(role, is_cordoned=True).takes(Role.PREFILL)


def test_worker_that_leaves_takes_no_work_whatever_it_is_ordered_to_be() -> None:
    heard = Heard()
    heard.book.check_serving()
    state = heard.book.leave()
    assert state == heard.book.state == RoleState(Role.PREFILL, is_leaving=True)
    assert not state.takes(Role.PREFILL)
    assert heard.book.order(RoleOrder("a", Role.DECODE, epoch=1)).is_leaving
    with pytest.raises(DrainingError, match="worker w@7 is leaving"):
        heard.book.check_serving()
