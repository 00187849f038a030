"""P and D on hosts of their own: KV moves over TCP, and the network between them fails while it does."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos.cluster import ChaosCluster
from tests.chaos.hosts import Hosts, why_not
from tests.chaos.model import BLOCK_TOKENS, ChaosModel
from tests.chaos.pair import LONG, NUM_NEW, PAIR, PROMPT, D, P, ask_until_moving, check_answer, wait_until_stuck

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240)]

PARTED_S = 2.0


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    if reason := why_not():
        pytest.skip(reason)
    with Hosts() as hosts:
        yield hosts


@pytest.fixture(scope="module")
def cluster(hosts: Hosts, chaos_folder: Path, chaos_model: ChaosModel) -> Iterator[ChaosCluster]:
    slots = [replace(slot, place=place) for slot, place in zip(PAIR, (hosts.prefill, hosts.decode), strict=True)]
    with ExitStack() as stack:
        yield stack.enter_context(
            ChaosCluster(
                chaos_folder,
                chaos_model.folder,
                chaos_model.block_bytes,
                slots,
                ucx_tls="tcp",
                router_place=hosts.router,
            )
        )


def wait_s(cluster: ChaosCluster, seconds: float) -> None:
    ends_s = time.monotonic() + seconds
    cluster.wait_until(lambda: time.monotonic() > ends_s, "over")


def test_kv_moves_between_hosts(cluster: ChaosCluster, chaos_model: ChaosModel) -> None:
    before = cluster.load(P).handoff_bytes
    check_answer(cluster, chaos_model, cluster.ask(PROMPT, NUM_NEW))
    assert cluster.load(P).handoff_bytes - before == -(-LONG // BLOCK_TOKENS) * chaos_model.block_bytes
    assert cluster.load(D).handoffs_received == 1


@pytest.mark.parametrize("letter", ["p", "d"])
def test_host_cut_off_in_the_middle_of_a_transfer_costs_a_pause(
    cluster: ChaosCluster, chaos_model: ChaosModel, hosts: Hosts, letter: str
) -> None:
    request = ask_until_moving(cluster)
    with hosts.cut_off(letter):
        wait_until_stuck(cluster)
        cluster.wait_until(lambda: len(cluster.statuses()) < len(PAIR), "lost to the router")
    check_answer(cluster, chaos_model, request)


def test_hosts_parted_in_the_middle_of_a_transfer_cost_a_pause(
    cluster: ChaosCluster, chaos_model: ChaosModel, hosts: Hosts
) -> None:
    """The router reaches both, and hears that both work."""
    request = ask_until_moving(cluster)
    with hosts.parted():
        wait_until_stuck(cluster)
        wait_s(cluster, PARTED_S)
        assert len(cluster.statuses()) == len(PAIR)
    check_answer(cluster, chaos_model, request)
