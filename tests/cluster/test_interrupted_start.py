"""Ctrl-C while the cluster is still starting."""

import time

import psutil
import pytest

from tests.cluster.conftest import free_ports
from tests.cluster.served import WAIT_S, start

pytestmark = [pytest.mark.cluster, pytest.mark.demo]


def test_interrupt_while_ray_starts_leaves_no_process_behind() -> None:
    cluster = start(free_ports())
    try:
        deadline_s = time.monotonic() + WAIT_S
        while len(psutil.Process(cluster.process.pid).children(recursive=True)) < 4:
            assert time.monotonic() < deadline_s, "Ray does not start"
        assert cluster.stop_with(cluster.interrupt) == []
    finally:
        cluster.close()
