from collections.abc import Iterator

import pytest

from core.clock import ManualClock
from core.errors import NoWorkerError, RateLimitedError
from core.request import FinishReason
from router.auth.caller import Caller, acting_for
from router.auth.metered import MeteredDispatcher
from router.auth.quota import KeyLimits, Quota
from tests.router.builders import generation_request
from tests.router.http.fakes import FakeDispatcher, FakeGeneration, tokens


@pytest.fixture
def quota() -> Quota:
    return Quota("alice", KeyLimits(tokens_per_minute=60, max_concurrent=1), 1, ManualClock())


@pytest.fixture
def dispatcher(quota: Quota) -> Iterator[FakeDispatcher]:
    with acting_for(Caller("alice", "alice", quota=quota)):
        yield FakeDispatcher()


def is_open(quota: Quota) -> bool:
    try:
        quota.begin(0)
    except RateLimitedError as error:
        return "under way" in error.message
    quota.end()
    return False


async def test_tokens_are_charged_as_they_are_read(dispatcher: FakeDispatcher, quota: Quota) -> None:
    dispatcher.script = lambda _request: [tokens(*range(50)), tokens(*range(50), finish=FinishReason.LENGTH)]
    answer = MeteredDispatcher(dispatcher).submit(generation_request())
    assert is_open(quota)
    assert len((await answer.read()).token_ids) == 100
    assert not is_open(quota)
    with pytest.raises(RateLimitedError, match="tokens_per_minute is 60"):
        MeteredDispatcher(dispatcher).submit(generation_request())


@pytest.mark.parametrize("end", ["error", "cancel", "twice"])
async def test_request_that_does_not_end_well_makes_room(dispatcher: FakeDispatcher, quota: Quota, end: str) -> None:
    dispatcher.script = lambda _request: [NoWorkerError("nobody")]
    answer = MeteredDispatcher(dispatcher).submit(generation_request())
    if end in ("error", "twice"):
        with pytest.raises(NoWorkerError):
            await answer.read()
    if end in ("cancel", "twice"):
        answer.cancel()
    assert not is_open(quota)


async def test_request_that_is_not_accepted_makes_room(dispatcher: FakeDispatcher, quota: Quota) -> None:
    dispatcher.refusal = NoWorkerError("nobody")
    with pytest.raises(NoWorkerError):
        MeteredDispatcher(dispatcher).submit(generation_request())
    assert not is_open(quota)


async def test_request_that_was_accepted_before_goes_on_as_such(dispatcher: FakeDispatcher) -> None:
    for emitted in ((), (1,) * 100):
        MeteredDispatcher(dispatcher).submit(generation_request(), emitted).cancel()
        generation = dispatcher.next_generation()
        assert (generation.is_new, generation.emitted) == (False, emitted)


async def test_request_without_limits_goes_straight_through(dispatcher: FakeDispatcher) -> None:
    with acting_for(Caller("bob", "bob")):
        answer = MeteredDispatcher(dispatcher).submit(generation_request())
    assert isinstance(answer, FakeGeneration)


def test_abort_is_passed_on(dispatcher: FakeDispatcher) -> None:
    MeteredDispatcher(dispatcher).abort("r", "alice")
    assert dispatcher.aborted == [("r", "alice")]


async def test_request_that_goes_on_is_not_refused_and_not_charged_again(
    dispatcher: FakeDispatcher, quota: Quota
) -> None:
    dispatcher.script = lambda _request: [tokens(1)]
    metered = MeteredDispatcher(dispatcher)
    first = metered.submit(generation_request())
    second = metered.submit(generation_request("s", prompt=tuple(range(50))), ())
    first.cancel()
    assert is_open(quota)
    second.cancel()
    assert not is_open(quota)
