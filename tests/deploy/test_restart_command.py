"""`baton restart`: what it orders, and when it says that all are back. How orders are shown: `test_roles_command`."""

import sys
from collections.abc import Iterator

import pytest
from baton.v1 import control_pb2
from google.protobuf.message import Message

from core.errors import UnreachableError
from deploy import cli, restart_client
from deploy.restart_client import wait_for_other_router
from tests.deploy.fake_router import FakeRouter, running_router, step

DONE = step("VERIFIED", "2 worker(s) restarted", is_last=True)


@pytest.fixture
def router(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRouter]:
    monkeypatch.setattr(restart_client, "BACK_POLL_S", 0.001)
    monkeypatch.setattr(restart_client, "BACK_TIMEOUT_S", 10.0)
    with running_router() as running:
        running.steps = [DONE]
        yield running


def run(router: FakeRouter, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Runs the command; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["baton", "restart", *arguments, "--grpc", router.address, "--actor", "me"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def orders(router: FakeRouter) -> list[object]:
    return [request for request in router.requests if not isinstance(request, control_pb2.GetStatusRequest)]


class Statuses(dict[str, Message]):
    """Answers to one question after another about the status; the last of them again and again."""

    def __init__(self, *statuses: control_pb2.GetStatusResponse) -> None:
        self.left = list(statuses)

    def __getitem__(self, method: str) -> Message:
        assert method == "GetStatus"
        return self.left.pop(0) if len(self.left) > 1 else self.left[0]


OLD, NEW = (control_pb2.GetStatusResponse(router_id=name) for name in ("old", "new"))
UNREADY = control_pb2.GetStatusResponse(router_id="new", unready_reason="no decode worker is attached yet")


def test_named_workers_are_restarted_as_ordered_and_no_router(
    router: FakeRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ("--max-unavailable", "2", "--drain-timeout-s", "0", "--force")
    assert run(router, monkeypatch, "decode-0", "prefill-1", *flags) == 0
    assert orders(router) == [
        control_pb2.RestartWorkersRequest(
            workers=["decode-0", "prefill-1"], actor="me", drain_timeout_s=0.0, max_unavailable=2, is_forced=True
        )
    ]


def test_cluster_decides_on_times_that_are_not_given(router: FakeRouter, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(router, monkeypatch, "--workers") == 0
    (order,) = orders(router)
    assert order == control_pb2.RestartWorkersRequest(actor="me", max_unavailable=1)
    assert not order.HasField("drain_timeout_s")  # type: ignore[attr-defined]


def test_restart_without_a_word_is_of_workers_and_then_of_routers(
    router: FakeRouter, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    router.answers = Statuses(OLD, NEW)
    assert run(router, monkeypatch) == 0
    assert [type(order).__name__ for order in orders(router)] == ["RestartWorkersRequest", "RestartRoutersRequest"]
    assert "the routers are back" in capsys.readouterr().out


def test_workers_that_fail_keep_the_routers_from_being_restarted(
    router: FakeRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    router.steps = [step("FAILED", "worker decode-0 has not left", is_last=True)]
    assert run(router, monkeypatch) == 1
    assert [type(order).__name__ for order in orders(router)] == ["RestartWorkersRequest"]


def test_router_is_waited_for_until_it_is_as_ready_as_the_one_before(router: FakeRouter) -> None:
    router.answers = statuses = Statuses(OLD, UNREADY, NEW)
    wait_for_other_router(router.address, "old", must_be_ready=True)
    assert statuses.left == [NEW]
    router.answers = Statuses(UNREADY)
    wait_for_other_router(router.address, "old", must_be_ready=False)


def test_router_that_does_not_come_back_is_an_error(router: FakeRouter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restart_client, "BACK_TIMEOUT_S", 0.01)
    with pytest.raises(UnreachableError, match="no router is ready at"):
        wait_for_other_router(router.address, "", must_be_ready=False)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--max-unavailable", "0"), "--max-unavailable is 0"),
        (("--drain-timeout-s", "-1"), "--drain-timeout-s is -1"),
        (("--drain-timeout-s", "inf"), "--drain-timeout-s is inf"),
        (("decode-0", "--workers"), "decode-0 are named"),
    ],
)
def test_flags_that_make_no_sense_are_refused_before_anything_is_asked(
    router: FakeRouter,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    words: str,
) -> None:
    assert run(router, monkeypatch, *arguments) == 2
    assert words in capsys.readouterr().err
    assert router.requests == []
