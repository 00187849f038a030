"""Too little room, and clients that leave: at every point of a request's way, nothing stays behind."""

from collections.abc import Callable

import grpc
import pytest

from tests.chaos.cluster import ChaosCluster
from tests.chaos.model import ChaosModel, prompt_of
from tests.chaos.pair import LONG, D, P, ask_until_moving, wait_until_stuck
from tests.chaos.request import Outcome, Request

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240)]

SHORT, MIDDLE = 16, 350
NUM_SLOTS = 4  # sequences that decode at once
FOR_LONG = 300  # tokens of an answer that goes on for a second or two


def test_more_sequences_than_blocks_are_answered_all_the_same(
    tcp_cluster: ChaosCluster, chaos_model: ChaosModel
) -> None:
    """Prompts wait for room; of four that fit, not all can grow to their end, and come back."""
    prompts = [prompt_of(MIDDLE, seed) for seed in range(3)]
    requests = [tcp_cluster.ask(prompt, 120) for prompt in prompts * 2]
    assert [request.outcome() for request in requests] == [Outcome(chaos_model.answer(p, 120)) for p in prompts] * 2
    tcp_cluster.settle()


def queued(cluster: ChaosCluster) -> Request:
    first = cluster.ask(prompt_of(LONG), 1)
    request = cluster.ask(prompt_of(LONG, 1), 8)
    cluster.wait_until(lambda: cluster.load(P).queued_prompts == 1, "queued")
    assert not first.has_ended
    return request


def computing(cluster: ChaosCluster) -> Request:
    request = cluster.ask(prompt_of(LONG), 8)
    cluster.wait_until(lambda: 0 < cluster.load(P).pending_prompt_tokens < LONG, "computing")
    return request


def waiting_for_room(cluster: ChaosCluster) -> Request:
    others = [cluster.ask(prompt_of(SHORT, seed), FOR_LONG, ignore_eos=True) for seed in range(NUM_SLOTS)]
    cluster.wait_until(lambda: cluster.load(D).running_sequences == NUM_SLOTS, "full")
    request = cluster.ask(prompt_of(MIDDLE), 8)
    cluster.wait_until(lambda: len(request.tokens) == 1, "computed")
    load = cluster.load(D)
    assert (load.running_sequences, load.incoming_handoffs) == (NUM_SLOTS, 1)
    for other in others:
        other.cancel()
    return request


def committed(cluster: ChaosCluster) -> Request:
    request = cluster.ask(prompt_of(SHORT), FOR_LONG, ignore_eos=True)
    cluster.wait_until(lambda: cluster.load(D).running_sequences == 1, "committed")
    return request


def decoding(cluster: ChaosCluster) -> Request:
    request = cluster.ask(prompt_of(SHORT), FOR_LONG, ignore_eos=True)
    cluster.wait_until(lambda: len(request.tokens) > 8, "decoding")
    return request


@pytest.mark.parametrize("end", [Request.cancel, Request.abort])
@pytest.mark.parametrize("reach", [queued, computing, waiting_for_room, ask_until_moving, committed, decoding])
def test_client_that_leaves_or_aborts_leaves_nothing_behind(
    tcp_cluster: ChaosCluster, reach: Callable[[ChaosCluster], Request], end: Callable[[Request], None]
) -> None:
    request = reach(tcp_cluster)
    assert not request.has_ended
    end(request)
    assert request.outcome().code is grpc.StatusCode.CANCELLED
    tcp_cluster.settle()


@pytest.mark.parametrize("timeout_s", [0.02, 0.05, 0.1, 0.2])
def test_request_out_of_time_leaves_nothing_behind(tcp_cluster: ChaosCluster, timeout_s: float) -> None:
    """While its prompt is computed or moves, or while it is decoded, as the machine has it."""
    request = tcp_cluster.ask(prompt_of(LONG), 100, ignore_eos=True, timeout_s=timeout_s)
    outcome = request.outcome()
    assert outcome.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert f"did not end within {timeout_s:g} s" in outcome.details
    tcp_cluster.settle()


def test_client_that_leaves_while_a_write_is_under_way_leaves_nothing_behind(tcp_cluster: ChaosCluster) -> None:
    request = ask_until_moving(tcp_cluster)
    with tcp_cluster.stopped(D):
        wait_until_stuck(tcp_cluster)
        request.cancel()
        tcp_cluster.wait_until(lambda: tcp_cluster.load(P).blocks_quarantined > 0, "in quarantine")
    tcp_cluster.settle()
