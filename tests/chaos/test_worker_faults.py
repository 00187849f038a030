"""Workers that die or stop while KV moves: the client gets the right answer, and nobody's books keep a block."""

import time

import grpc
import pytest

from tests.chaos.cluster import ChaosCluster
from tests.chaos.model import ChaosModel
from tests.chaos.pair import NUM_NEW, PROMPT, D, P, ask_until_moving, check_answer, wait_until_stuck

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240)]

STOP_S = 10.0
HANG_TIMEOUT_S = 2.0
LAST = 4  # tokens into an answer at which its decode worker is killed


def test_undisturbed_answer_is_that_of_transformers(tcp_cluster: ChaosCluster, chaos_model: ChaosModel) -> None:
    check_answer(tcp_cluster, chaos_model, tcp_cluster.ask(PROMPT, NUM_NEW))


@pytest.mark.parametrize("victim", [P, D])
def test_worker_killed_in_the_middle_of_a_transfer_over_shared_memory_costs_a_pause(
    shm_cluster: ChaosCluster, chaos_model: ChaosModel, victim: str
) -> None:
    request = ask_until_moving(shm_cluster)
    shm_cluster.kill(victim)
    check_answer(shm_cluster, chaos_model, request)


@pytest.mark.parametrize("victim", [P, D])
def test_worker_killed_with_a_write_over_tcp_under_way_costs_a_pause(
    tcp_cluster: ChaosCluster, chaos_model: ChaosModel, victim: str
) -> None:
    request = ask_until_moving(tcp_cluster)
    with tcp_cluster.stopped(D):
        wait_until_stuck(tcp_cluster)
        tcp_cluster.kill(victim)
    check_answer(tcp_cluster, chaos_model, request)


def test_decode_worker_killed_while_it_generates_costs_a_pause(
    tcp_cluster: ChaosCluster, chaos_model: ChaosModel
) -> None:
    request = tcp_cluster.ask(PROMPT, NUM_NEW)
    tcp_cluster.wait_until(lambda: len(request.tokens) >= LAST, "generating")
    tcp_cluster.kill(D)
    check_answer(tcp_cluster, chaos_model, request)


def test_blocks_in_quarantine_for_a_dead_worker_are_free_without_its_successor_connecting(
    tcp_cluster: ChaosCluster,
) -> None:
    """Nobody sends the decode worker anything any more: it hears of the death from the router."""
    request = ask_until_moving(tcp_cluster)
    before = tcp_cluster.incarnation(P)
    tcp_cluster.kill(P)
    request.cancel()
    assert request.outcome().code is grpc.StatusCode.CANCELLED
    tcp_cluster.wait_until(lambda: tcp_cluster.incarnation(P) > before, "started again")
    tcp_cluster.settle()
    assert tcp_cluster.load(P).handoffs_sent == 0


def test_worker_stopped_for_ten_seconds_goes_on_and_nothing_is_lost(
    tcp_cluster: ChaosCluster, shm_cluster: ChaosCluster, chaos_model: ChaosModel
) -> None:
    """A prefill worker in one cluster and a decode worker in the other, at the same time."""
    victims = {P: shm_cluster, D: tcp_cluster}
    before = {name: cluster.incarnation(name) for name, cluster in victims.items()}
    requests = {name: ask_until_moving(cluster) for name, cluster in victims.items()}
    with shm_cluster.stopped(P), tcp_cluster.stopped(D):
        wakes_s = time.monotonic() + STOP_S
        tcp_cluster.wait_until(lambda: time.monotonic() > wakes_s, "awake")
        assert [cluster.incarnation(name) for name, cluster in victims.items()] == [0, 0]  # routers gave them up
    for name, cluster in victims.items():
        check_answer(cluster, chaos_model, requests[name])
        assert cluster.incarnation(name) == before[name]


@pytest.mark.parametrize("victim", [P, D])
def test_worker_that_hangs_is_killed_and_replaced(
    tcp_cluster: ChaosCluster, chaos_model: ChaosModel, victim: str
) -> None:
    before = tcp_cluster.incarnation(victim)
    with tcp_cluster.supervised(HANG_TIMEOUT_S):
        request = ask_until_moving(tcp_cluster)
        with tcp_cluster.stopped(victim):
            check_answer(tcp_cluster, chaos_model, request)
    assert tcp_cluster.incarnation(victim) > before
