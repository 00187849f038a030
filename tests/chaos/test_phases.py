"""A worker dies in each phase of a request: clients of every kind get what they would have got undisturbed.

Each test waits for the phase and kills then. Whether the phase lasts until the signal is delivered is up to the
machine; what clients get must not depend on it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from core.events import WorkerLoad
from core.request import Role
from deploy.bench.chaos.answer import Answer
from tests.chaos.client_group import ClientGroup, differences
from tests.chaos.cluster import ChaosCluster
from tests.chaos.model import BLOCK_TOKENS
from tests.chaos.request import Outcome, Request

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]

P, D, OTHER = "prefill-0", "decode-0", "decode-1"
STOP_CHARS = 2

Is = Callable[[WorkerLoad], bool]


@dataclass(frozen=True)
class Expected:
    """What an undisturbed group gets."""

    stops: dict[int, str]
    answers: dict[int, Answer]
    over_grpc: tuple[Outcome, str, int, int]


@pytest.fixture(scope="module")
def expected(fleet_cluster: ChaosCluster) -> Expected:
    learnt = ClientGroup(fleet_cluster, {}).over_http.answers()
    texts = {number: answer.text for number, answer in learnt.items() if number % 2 == 0}
    stops = {number: text[len(text) // 2 :][:STOP_CHARS] for number, text in texts.items()}
    group = ClientGroup(fleet_cluster, stops)
    answers, over_grpc = group.over_http.answers(), said(group.over_grpc)
    assert {answers[number].finish_reason for number in stops} == {"stop"}
    fleet_cluster.settle()
    return Expected(stops, answers, over_grpc)


def said(request: Request) -> tuple[Outcome, str, int, int]:
    """All tokens, their text, and how many tokens prompt and answer have."""
    return request.outcome(), request.text, request.usage.prompt_tokens, request.usage.completion_tokens


def check(cluster: ChaosCluster, group: ClientGroup, expected: Expected) -> None:
    assert differences(group.over_http.answers(), expected.answers) == []
    assert said(group.over_grpc) == expected.over_grpc
    cluster.settle()


def wait_for(cluster: ChaosCluster, group: ClientGroup, worker: str, is_so: Is, what: str) -> None:
    cluster.wait_until(lambda: group.has_ended or is_so(cluster.load(worker)), what)


@pytest.mark.parametrize(
    ("victim", "watched", "is_so"),
    [
        pytest.param(P, P, lambda load: load.queued_prompts > 0, id="queued"),
        pytest.param(P, P, lambda load: load.prompt_tokens_computed > 0, id="computing"),
        pytest.param(D, P, lambda load: load.blocks_leased > 0, id="moving"),
        pytest.param(P, P, lambda load: load.handoffs_sent > 0, id="committed"),
        pytest.param(D, D, lambda load: load.decode_tokens_computed > 0, id="decoding"),
    ],
)
def test_worker_killed_in_a_phase_costs_a_pause(
    fleet_cluster: ChaosCluster, expected: Expected, victim: str, watched: str, is_so: Is
) -> None:
    before = fleet_cluster.load(watched)
    group = ClientGroup(fleet_cluster, expected.stops)
    wait_for(fleet_cluster, group, watched, lambda load: is_so(since(before, load)), "in the phase")
    fleet_cluster.kill(victim)
    check(fleet_cluster, group, expected)


@pytest.mark.parametrize("victim", [D, OTHER])
def test_worker_killed_while_sequences_migrate_costs_a_pause(
    fleet_cluster: ChaosCluster, expected: Expected, victim: str
) -> None:
    """The target is stopped meanwhile, so that no movement ends; what has ended before has nowhere to move."""
    group = ClientGroup(fleet_cluster, expected.stops)
    wait_for(fleet_cluster, group, D, lambda load: load.running_sequences > 0, "decoding")
    with fleet_cluster.stopped(OTHER):
        assert fleet_cluster.flip(D, Role.PREFILL)
        wait_for(fleet_cluster, group, D, is_migrating_if_anything, "migrating")
        fleet_cluster.kill(victim)
    check(fleet_cluster, group, expected)
    give_role_back(fleet_cluster)


def test_worker_killed_while_it_changes_its_role_costs_a_pause(
    fleet_cluster: ChaosCluster, expected: Expected
) -> None:
    group = ClientGroup(fleet_cluster, expected.stops)
    wait_for(fleet_cluster, group, D, lambda load: load.running_sequences > 0, "decoding")
    assert fleet_cluster.flip(D, Role.PREFILL)
    fleet_cluster.kill(D)
    check(fleet_cluster, group, expected)
    give_role_back(fleet_cluster)


def test_worker_killed_while_a_prefix_is_fetched_from_it_costs_a_pause(
    fleet_cluster: ChaosCluster, expected: Expected
) -> None:
    """The prompts are known to the decode workers only: the prefill worker is a new one."""
    salt = fleet_cluster.new_salt()
    check(fleet_cluster, ClientGroup(fleet_cluster, expected.stops, salt), expected)
    before = fleet_cluster.incarnation(P)
    fleet_cluster.kill(P)
    fleet_cluster.wait_until(lambda: fleet_cluster.incarnation(P) > before, "started again")
    group = ClientGroup(fleet_cluster, expected.stops, salt)
    wait_for(fleet_cluster, group, P, lambda load: load.blocks_free < load.blocks_total, "fetching")
    fleet_cluster.kill(D)
    check(fleet_cluster, group, expected)


def test_cached_tokens_stay_those_of_the_first_token_when_the_decode_worker_dies(
    fleet_cluster: ChaosCluster, expected: Expected
) -> None:
    salt = fleet_cluster.new_salt()
    check(fleet_cluster, ClientGroup(fleet_cluster, expected.stops, salt), expected)
    before = fleet_cluster.load(D)
    group = ClientGroup(fleet_cluster, expected.stops, salt)
    wait_for(fleet_cluster, group, D, lambda load: since(before, load).decode_tokens_computed > 0, "decoding")
    fleet_cluster.kill(D)
    check(fleet_cluster, group, expected)
    for answer in group.over_http.answers().values():
        assert answer.num_cached_tokens == (answer.num_prompt_tokens - 1) // BLOCK_TOKENS * BLOCK_TOKENS


def is_migrating_if_anything(load: WorkerLoad) -> bool:
    """Whether sequences are on their way elsewhere, or there are none to move."""
    return load.migrations_open > 0 or load.running_sequences == 0


def since(before: WorkerLoad, now: WorkerLoad) -> WorkerLoad:
    """What a worker says, with the totals that tests look at counted from an earlier look."""
    names = ("prompt_tokens_computed", "handoffs_received", "handoffs_sent", "decode_tokens_computed")
    return replace(now, **{name: getattr(now, name) - getattr(before, name) for name in names})


def give_role_back(cluster: ChaosCluster) -> None:
    """A worker that has died is ordered into the role that it was given before: it gets its own again."""
    cluster.wait_until(lambda: cluster.flip(D, Role.DECODE), "ordered")
    cluster.wait_until(lambda: cluster.role(D) is Role.DECODE, "a decode worker again")
