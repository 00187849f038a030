"""What every journal store does, whatever is behind it."""

from collections.abc import AsyncIterator, Callable

import pytest

from core.clock import ManualClock
from router.journal import memory_store, redis_store
from router.journal.memory_store import MemoryJournalStore
from router.journal.redis_store import RedisJournalStore
from router.journal.store import LOOK, Claim, Fate, JournalStore, KeyHolder
from router.state.address import parse_state
from tests.router.journal.heads import REQUEST_ID, head_of, more, update_of

HEAD = head_of(stops=("x", "größer"), rendering={"model": "m", "stream": True})
CLAIM = Claim(REQUEST_ID, tenant="", fingerprint=None, interrupts=True)
LIMIT = 10
DIE_S = 0.02  # of a router that is to die in a test, in a server's time

Die = Callable[[str], None]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(100.0)


@pytest.fixture(params=["memory", "redis"])
async def store(request: pytest.FixtureRequest, clock: ManualClock) -> AsyncIterator[JournalStore]:
    if request.param == "memory":
        opened: JournalStore = MemoryJournalStore(clock)
    else:
        address = parse_state(request.getfixturevalue("redis_server").url)
        assert address is not None
        opened = RedisJournalStore(address)
    yield opened
    await opened.close()


async def begin(store: JournalStore, router: str = "a", term: int = 1) -> None:
    saved = await store.save(router, [update_of(HEAD, term)], ())
    assert saved.fates == (Fate.SAVED,)


async def test_taken_request_is_as_it_was_saved(store: JournalStore) -> None:
    await begin(store)
    later = more(update_of(HEAD), 0, 5, 70000, num_cached_tokens=2)
    await store.save("a", [later], ())
    await store.save("a", [more(later, 2, 7)], ())
    taken = await store.take("b", CLAIM, term=1)
    assert taken is not None
    assert (taken.head, taken.token_ids, taken.num_cached_tokens) == (HEAD, (5, 70000, 7), 2)
    assert (taken.holder, taken.term, taken.was_running) == ("b", 2, True)


async def test_update_that_comes_twice_changes_nothing(store: JournalStore) -> None:
    await begin(store)
    later = more(update_of(HEAD), 0, 5, 6)
    for _ in range(2):
        assert (await store.save("a", [later], ())).fates == (Fate.SAVED,)
    taken = await store.take("a", CLAIM, term=1)
    assert taken is not None
    assert taken.token_ids == (5, 6)


async def test_what_the_store_does_not_know_must_be_sent_again(store: JournalStore) -> None:
    unknown = more(update_of(HEAD), 0, 5)
    assert (await store.save("a", [unknown], ())).fates == (Fate.UNKNOWN,)
    await begin(store)
    assert (await store.save("a", [more(unknown, 3, 8)], ())).fates == (Fate.UNKNOWN,)
    whole = update_of(HEAD, token_ids=(5, 6, 7, 8))
    assert (await store.save("a", [whole], ())).fates == (Fate.SAVED,)
    taken = await store.take("a", CLAIM, term=1)
    assert taken is not None
    assert taken.token_ids == (5, 6, 7, 8)


async def test_holder_whose_request_was_taken_has_lost_it(store: JournalStore) -> None:
    await begin(store, "a")
    await begin_other(store)
    taken = await store.take("b", CLAIM, term=50)
    assert taken is not None
    assert taken.term == 50
    saved = await store.save("a", [more(update_of(HEAD), 0, 9), more(update_of(OTHER), 0, 9)], ())
    assert saved.fates == (Fate.LOST, Fate.SAVED)
    assert (await store.save("b", [more(update_of(HEAD, 50), 0, 5)], ())).fates == (Fate.SAVED,)
    again = await store.take("a", CLAIM, term=1)
    assert again is not None
    assert (again.token_ids, again.term) == ((5,), 51)


OTHER = head_of("f" * 32)


async def begin_other(store: JournalStore) -> None:
    await store.save("a", [update_of(OTHER)], ())


async def test_higher_term_has_precedence_over_whoever_holds_a_request(store: JournalStore) -> None:
    await begin(store, "a", term=1)
    assert (await store.save("b", [update_of(HEAD, 2)], ())).fates == (Fate.SAVED,)
    assert (await store.save("a", [more(update_of(HEAD, 1), 0, 5)], ())).fates == (Fate.LOST,)
    assert (await store.save("c", [update_of(HEAD, 2)], ())).fates == (Fate.LOST,)


async def test_request_of_another_tenant_is_unknown_and_stays_where_it_is(store: JournalStore) -> None:
    await store.save("a", [update_of(head_of(tenant="t"))], ())
    assert await store.take("b", CLAIM, term=9) is None
    assert (await store.save("a", [more(update_of(head_of(tenant="t")), 0, 5)], ())).fates == (Fate.SAVED,)


async def test_claim_of_another_body_sees_the_request_and_does_not_take_it(store: JournalStore) -> None:
    await begin(store)
    seen = await store.take("b", Claim(REQUEST_ID, "", "another", interrupts=True), term=9)
    assert seen is not None
    assert (seen.holder, seen.head.fingerprint) == ("a", "f")
    assert (await store.save("a", [more(update_of(HEAD), 0, 5)], ())).fates == (Fate.SAVED,)


async def test_patient_claim_waits_for_a_living_holder_that_works_on_it(store: JournalStore) -> None:
    await begin(store)
    patient = Claim(REQUEST_ID, "", "f", interrupts=False)
    seen = await store.take("b", patient, term=9)
    assert seen is not None
    assert seen.holder == "a"
    await store.save("a", [more(update_of(HEAD), 0, 5, is_running=False)], ())
    taken = await store.take("b", patient, term=9)
    assert taken is not None
    assert (taken.holder, taken.token_ids, taken.was_running) == ("b", (5,), False)


async def test_patient_claim_takes_from_the_dead(store: JournalStore) -> None:
    await begin(store)
    await store.leave("a")
    taken = await store.take("b", Claim(REQUEST_ID, "", "f", interrupts=False), term=9)
    assert taken is not None
    assert taken.holder == "b"


async def test_unknown_request_is_none(store: JournalStore) -> None:
    assert await store.take("a", CLAIM, term=1) is None


async def test_running_requests_of_a_router_that_left_are_adopted_once(store: JournalStore) -> None:
    await begin(store)
    await begin_other(store)
    await store.save("a", [update_of(head_of("e" * 32), is_running=False)], ())
    await store.save("b", (), ())
    await store.save("c", (), ())
    assert await store.adopt("b", 9, LIMIT) == []
    await store.leave("a")
    (first,) = await store.adopt("b", 9, 1)
    (second,) = await store.adopt("c", 9, LIMIT)
    assert {first.head.request_id, second.head.request_id} == {REQUEST_ID, "f" * 32}
    assert (first.holder, second.holder, first.term, first.was_running) == ("b", "c", 9, True)
    await store.save("b", [update_of(first.head, first.term)], ())
    assert await store.adopt("b", 9, LIMIT) == []


async def test_router_that_is_silent_is_dead(
    store: JournalStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (memory_store, redis_store):
        monkeypatch.setattr(module, "ROUTER_LEASE_S", DIE_S)
    await begin(store)
    assert (await store.save("b", (), ())).lease_was_held is False
    adopted = []
    while not adopted:
        clock.advance(DIE_S)
        adopted = await store.adopt("b", 9, LIMIT)
    assert adopted[0].head == HEAD
    monkeypatch.undo()
    await store.save("b", (), ())
    assert (await store.save("b", (), ())).lease_was_held is True


@pytest.mark.parametrize("is_adopted", [True, False])
async def test_request_whose_holder_was_not_told_so_is_adopted_again_until_it_is_saved(
    store: JournalStore, is_adopted: bool
) -> None:
    await begin(store, "a")
    await store.save("b", (), ())
    await store.leave("a")
    if is_adopted:
        await store.adopt("b", 9, LIMIT)
    else:
        await store.take("b", CLAIM, 9)
    (again,) = await store.adopt("b", 9, LIMIT)
    assert (again.head, again.holder, again.term) == (HEAD, "b", 9)
    await store.save("b", [update_of(HEAD, 9)], ())
    assert await store.adopt("b", 9, LIMIT) == []


async def test_request_that_is_not_saved_by_one_router_and_taken_by_another_is_that_ones(store: JournalStore) -> None:
    await begin(store, "a")
    for router in "bc":
        await store.save(router, (), ())
        await store.take(router, CLAIM, 9)
    assert await store.adopt("b", 9, LIMIT) == []
    (again,) = await store.adopt("c", 9, LIMIT)
    assert again.term == 10


async def test_claim_that_looks_takes_nothing(store: JournalStore) -> None:
    await begin(store, "a")
    seen = await store.take("b", Claim(REQUEST_ID, "", LOOK, interrupts=True), 9)
    assert seen is not None
    assert (seen.head, seen.holder) == (HEAD, "a")


async def test_nobody_adopts_their_own(store: JournalStore) -> None:
    await begin(store)
    await store.leave("a")
    assert await store.adopt("a", 9, LIMIT) == []


async def test_key_stands_for_the_first_request_as_long_as_that_is_kept(store: JournalStore) -> None:
    first = await store.begin("a", update_of(HEAD), "k")
    assert first == KeyHolder(REQUEST_ID, "f")
    assert await store.begin("b", update_of(OTHER), "k") == first
    assert await store.take("b", Claim(OTHER.request_id, "", None, interrupts=True), 1) is None
    assert (await store.begin("b", update_of(OTHER), "l")).request_id == OTHER.request_id
    await store.save("a", (), (REQUEST_ID,))
    third = head_of("e" * 32)
    assert (await store.begin("b", update_of(third), "k")).request_id == third.request_id


async def test_what_is_kept_long_enough_is_gone(store: JournalStore, clock: ManualClock) -> None:
    await store.begin("a", update_of(HEAD, keep_s=600), "k")
    await store.save("a", [more(update_of(HEAD), 0, 5, is_running=False, keep_s=DIE_S)], ())
    claim = Claim(REQUEST_ID, "", "another", interrupts=True)  # which looks, and takes nothing
    while await store.take("a", claim, term=1) is not None:
        clock.advance(DIE_S)
    assert (await store.begin("a", update_of(OTHER), "k")).request_id == OTHER.request_id


async def test_only_the_holder_drops_a_request(store: JournalStore) -> None:
    await begin(store)
    await store.save("b", (), (REQUEST_ID, "unknown"))
    assert await store.take("a", CLAIM, term=1) is not None
    await store.save("a", (), (REQUEST_ID,))
    assert await store.take("a", CLAIM, term=1) is None
