import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from baton.v1 import common_pb2, control_pb2

from core.errors import (
    BatonError,
    DeadlineError,
    InternalError,
    InvalidRequestError,
    StaleEpochError,
    UnavailableError,
)
from deploy import cli
from tests.deploy.fake_router import WAIT_S, FakeRouter, change, running_router, step, worker_role

SET = ("roles", "set", "decode-0", "prefill")
STREAMS = (
    SET,
    ("roles", "rebalance", "--prefill", "2", "--decode", "1"),
    ("drain", "decode-0"),
    ("restart", "decode-0"),
)
ORDERS = (*STREAMS, ("uncordon", "decode-0"), ("roles", "auto", "on"))
VERIFIED = (
    step("ORDERED", "decode-0: has been told to go from decode to [prefill]"),
    step("CHANGED", num_leaving=2, elapsed_s=0.1),
    step("CHANGED", num_leaving=2, elapsed_s=0.2),
    step("VERIFIED", "decode-0: is prefill", elapsed_s=1.5),
    step("VERIFIED", "verified", is_last=True, elapsed_s=1.5),
)


@pytest.fixture
def router() -> Iterator[FakeRouter]:
    with running_router() as running:
        yield running


class Shell:
    """Runs `baton` commands against the router."""

    def __init__(
        self, router: FakeRouter, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self._router, self._monkeypatch, self._capsys = router, monkeypatch, capsys

    def run(self, *arguments: str, code: int = 0) -> str:
        """Its output; fails on another exit code."""
        return self._run(*arguments, code=code).out

    def fail(self, *arguments: str, code: int) -> str:
        """What it says on stderr."""
        return self._run(*arguments, code=code).err

    def _run(self, *arguments: str, code: int) -> "pytest.CaptureResult[str]":
        self._monkeypatch.setattr(sys, "argv", ["baton", *arguments, "--grpc", self._router.address])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        output = self._capsys.readouterr()
        assert caught.value.code == code, output
        return output


@pytest.fixture
def shell(router: FakeRouter, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(router, monkeypatch, capsys)


def test_show_has_holds_what_is_left_the_last_change_and_alarms(router: FakeRouter, shell: Shell) -> None:
    router.answers["GetRoles"] = control_pb2.GetRolesResponse(
        is_auto=True,
        is_leader=True,
        ttft_limit_s=2,
        tpot_limit_s=0.1,
        alarms=["decode-0 executed no [prompt] since its flip"],
        workers=[
            worker_role(
                "decode-0", common_pb2.ROLE_PREFILL, is_pinned=True, is_cordoned=True, since_s=90, queued_prompts=3,
                running_sequences=4, num_leaving=5, last_change=change(actor="ann@host", reason="a test"),
            ),
            worker_role("decode-1", common_pb2.ROLE_MIXED, since_s=7200),
        ],
    )  # fmt: skip
    header, alarm, columns, first, second = shell.run("roles", "show").splitlines()
    assert header == "automatic roles are on; this router decides; limits: TTFT 2000 ms, TPOT 100 ms"
    assert alarm == "alarm: decode-0 executed no [prompt] since its flip"
    assert columns.split()[:3] == ["worker", "role", "held"]
    assert re.split(r"  +", first.strip())[:7] == [
        "decode-0", "prefill", "pinned, cordoned", "2 min", "3", "4", "5",
    ]  # fmt: skip
    assert first.rstrip().endswith("decode -> prefill verified, by ann@host: a test")
    assert second.split() == ["decode-1", "mixed", "-", "2.0", "h", "0", "0", "0", "-"]


def test_router_that_does_not_decide_does_not_claim_to_know_who_does(router: FakeRouter, shell: Shell) -> None:
    router.answers["GetRoles"] = control_pb2.GetRolesResponse(is_auto=True, ttft_limit_s=2, tpot_limit_s=0.1)
    assert shell.run("roles", "show").startswith("automatic roles are on; this router does not decide; limits")


def test_show_as_json_has_words_and_numbers(router: FakeRouter, shell: Shell) -> None:
    router.answers["GetRoles"] = control_pb2.GetRolesResponse(workers=[worker_role("decode-0", is_pinned=True)])
    shown = json.loads(shell.run("roles", "show", "--json"))
    (worker,) = shown["workers"]
    assert worker["state"] == {
        "role": "decode", "role_epoch": 1, "is_cordoned": False, "is_pinned": True, "order_id": "", "revision": 0,
        "is_leaving": False,
    }  # fmt: skip
    assert (worker["last_change"], shown["is_auto"], shown["alarms"]) == (None, False, [])


def test_set_prints_each_progress_once(router: FakeRouter, shell: Shell) -> None:
    router.steps = VERIFIED
    assert shell.run(*SET, "--actor", "ann").splitlines() == [
        "   0.0 s  decode-0: has been told to go from decode to [prefill]",
        "   0.1 s  decode-0: changed, 2 request(s) still to leave",
        "   1.5 s  decode-0: is prefill",
        "   1.5 s  verified",
    ]
    (request,) = router.requests
    assert (request.worker, request.role, request.actor) == ("decode-0", common_pb2.ROLE_PREFILL, "ann")


def test_change_without_work_is_success(router: FakeRouter, shell: Shell) -> None:
    router.steps = [step("CHANGED", "in the new role; there is no work yet to verify it with", is_last=True)]
    assert shell.run(*SET) == "   0.0 s  in the new role; there is no work yet to verify it with\n"


def test_set_auto_lifts_the_pin(router: FakeRouter, shell: Shell) -> None:
    router.steps = [step("VERIFIED", "no longer pinned", is_last=True)]
    assert shell.run("roles", "set", "decode-0", "auto") == "   0.0 s  no longer pinned\n"
    (request,) = router.requests
    assert request.role == common_pb2.ROLE_UNSPECIFIED
    assert re.fullmatch(r".+@.+", request.actor)


@pytest.mark.parametrize("order", STREAMS)
def test_failed_order_is_exit_code_1(order: tuple[str, ...], router: FakeRouter, shell: Shell) -> None:
    router.steps = [step("ORDERED"), step("FAILED", "the worker was lost", is_last=True)]
    assert shell.run(*order, code=1).splitlines()[-1] == "   0.0 s  the worker was lost"


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("refusal", [InvalidRequestError, StaleEpochError])
def test_refused_order_is_the_routers_sentence_and_exit_code_2(
    order: tuple[str, ...], refusal: type[BatonError], router: FakeRouter, shell: Shell
) -> None:
    router.refusal = refusal("decode-0 is the last [decode] worker; start another first")
    assert shell.fail(*order, code=2) == "error: decode-0 is the last [decode] worker; start another first\n"


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("error", [UnavailableError, DeadlineError, InternalError])
def test_order_whose_outcome_is_not_known_is_a_failure_and_no_refusal(
    order: tuple[str, ...], error: type[BatonError], router: FakeRouter, shell: Shell
) -> None:
    router.refusal = error("worker decode-0 was lost before it had answered")
    assert shell.fail(*order, code=1) == "error: worker decode-0 was lost before it had answered\n"


@pytest.mark.parametrize("order", STREAMS)
@pytest.mark.parametrize(("error", "code"), [(StaleEpochError, 2), (UnavailableError, 1), (DeadlineError, 1)])
def test_order_that_a_worker_refuses_after_it_was_sent_is_refused_too(
    order: tuple[str, ...], error: type[BatonError], code: int, router: FakeRouter, shell: Shell
) -> None:
    router.steps, router.failure = [step("ORDERED")], error("worker decode-0@1 refuses: it is at epoch 9")
    assert shell.fail(*order, code=code) == "error: worker decode-0@1 refuses: it is at epoch 9\n"


def test_stream_that_ends_before_the_order_does_is_no_success(router: FakeRouter, shell: Shell) -> None:
    router.steps = [step("ORDERED")]
    assert "stopped telling how the order goes; the order may go on: `baton roles show`" in shell.fail(*SET, code=1)


def test_questions_end_with_the_error_that_the_router_names(router: FakeRouter, shell: Shell) -> None:
    router.refusal = InternalError("KeyError in the router; see its log")
    assert shell.fail("roles", "show", code=1) == "error: KeyError in the router; see its log\n"
    router.close()
    assert f"the router at {router.address} does not answer: UNAVAILABLE" in shell.fail("roles", "show", code=1)


def test_rebalance_shows_every_worker(router: FakeRouter, shell: Shell) -> None:
    router.steps = [
        step("ORDERED", worker="decode-0"),
        step("ORDERED", worker="decode-1"),
        step("VERIFIED", worker="decode-1"),
        step("CHANGED", worker="", is_last=True),
    ]
    assert shell.run("roles", "rebalance", "--prefill", "2", "--decode", "1").splitlines() == [
        "   0.0 s  decode-0: ordered",
        "   0.0 s  decode-1: ordered",
        "   0.0 s  decode-1: verified",
        "   0.0 s  all workers: changed",
    ]
    (request,) = router.requests
    assert (request.num_prefill, request.num_decode, request.dry_run) == (2, 1, False)


def test_dry_run_says_what_would_be_done(router: FakeRouter, shell: Shell) -> None:
    router.steps = [
        step("ORDERED", "decode-0 would go from decode to prefill"),
        step("VERIFIED", "1 change(s) would do it", worker="", is_last=True),
    ]
    shown = shell.run("roles", "rebalance", "--prefill", "2", "--decode", "1", "--dry-run")
    assert [line[10:] for line in shown.splitlines()] == [
        "decode-0 would go from decode to prefill",
        "1 change(s) would do it",
    ]
    assert router.requests[0].dry_run


def test_drain_and_uncordon(router: FakeRouter, shell: Shell) -> None:
    router.steps = [step("CHANGED", num_leaving=1), step("VERIFIED", "nothing is left", is_last=True)]
    assert shell.run("drain", "decode-0").splitlines()[-1] == "   0.0 s  nothing is left"
    assert shell.run("uncordon", "decode-0") == "decode-0 has work again as soon as there is some\n"
    assert [type(request) for request in router.requests] == [
        control_pb2.DrainWorkerRequest, control_pb2.UncordonWorkerRequest,
    ]  # fmt: skip


def test_auto_names_who_keeps_its_role(router: FakeRouter, shell: Shell) -> None:
    router.answers["SetAutoRoles"] = control_pb2.SetAutoRolesResponse(pinned=["decode-0", "prefill-0"])
    on = shell.run("roles", "auto", "on", "--actor", "ann")
    assert on == "automatic roles are on; pinned, and left as they are: decode-0, prefill-0\n"
    assert shell.run("roles", "auto", "off") == "automatic roles are off\n"
    assert [request.is_auto for request in router.requests] == [True, False]


def test_why_has_the_sentence_the_numbers_and_the_splits(router: FakeRouter, shell: Shell) -> None:
    decision = control_pb2.RoleDecision(
        at=0, reason="prompts wait", num_prefill=1, num_decode=2, wanted_prefill=2, wanted_decode=1,
        flips=[control_pb2.RoleFlip(worker="decode-1", role=common_pb2.ROLE_PREFILL)],
        numbers={"prompt_load_workers": 1.5, "arrivals_per_s": 2},
        options=[
            control_pb2.SplitScore(num_prefill=2, num_decode=1, goodput=2.25, ttft_s=0.5, tpot_s=0.05, num_mixed=3)
        ],
    )  # fmt: skip
    router.answers["ListRoleDecisions"] = control_pb2.ListRoleDecisionsResponse(decisions=[decision])
    sentence, flip, numbers, _, split = shell.run("roles", "why", "--limit", "3").splitlines()
    assert sentence.endswith("1 prefill + 2 decode -> 2 prefill + 1 decode: prompts wait")
    assert flip == "  flip: decode-1 to prefill"
    assert numbers == "  arrivals_per_s 2, prompt_load_workers 1.5"
    assert split.split() == ["2", "1", "3", "2.25", "0.5", "0.05"]
    assert router.requests[0].limit == 3
    (shown,) = json.loads(shell.run("roles", "why", "--json"))["decisions"]
    assert shown["numbers"] == {"prompt_load_workers": 1.5, "arrivals_per_s": 2.0}
    assert shown["flips"] == [{"worker": "decode-1", "role": "prefill"}]


def test_history_and_log_are_tables(router: FakeRouter, shell: Shell) -> None:
    router.answers["ListRoleChanges"] = control_pb2.ListRoleChangesResponse(
        changes=[change(actor="controller", reason="prompts wait", message="late", changed_s=0.5, num_migrated=7)]
    )
    router.answers["ListOperatorActions"] = control_pb2.ListOperatorActionsResponse(
        actions=[control_pb2.OperatorAction(actor="ann", action="drain decode-0", outcome="refused: the last one")]
    )
    row = shell.run("roles", "history").splitlines()[-1]
    for word in ("decode-0", "decode -> prefill", "verified", "controller", "0.50", "7", "prompts wait: late"):
        assert word in row
    entry = shell.run("roles", "log").splitlines()[-1]
    assert re.split(r"  +", entry.strip())[1:] == ["ann", "drain decode-0", "refused: the last one"]
    for command in ("history", "log"):
        assert json.loads(shell.run("roles", command, "--json"))


def test_nothing_yet_is_a_sentence(shell: Shell) -> None:
    assert "decided nothing yet" in shell.run("roles", "why")
    assert "no role has changed yet" in shell.run("roles", "history")
    assert "no operator has ordered anything yet" in shell.run("roles", "log")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("set", "decode-0", "router"), "'router' is no role; choose one of prefill, decode, mixed, or auto"),
        (("rebalance", "--prefill", "0", "--decode", "0"), "--prefill 0 --decode 0 is no split"),
        (("rebalance", "--prefill", "-1", "--decode", "4"), "--prefill -1 --decode 4 is no split"),
        (("rebalance", "--prefill", "1", "--decode", str(2**32)), "is no split"),
        (("auto", "maybe"), "roles can be automatic on or off, not 'maybe'"),
        (("why", "--limit", "-1"), "--limit is -1"),
        (("history", "--limit", "-5"), "--limit is -5"),
        (("log", "--limit", str(2**32)), "--limit is 4294967296"),
    ],
)
def test_bad_input_is_one_sentence_and_reaches_no_router(
    arguments: tuple[str, ...], sentence: str, router: FakeRouter, shell: Shell
) -> None:
    assert sentence in shell.fail("roles", *arguments, code=2)
    assert router.requests == []


@contextlib.contextmanager
def in_terminal(router: FakeRouter, *arguments: str) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    """The command in a terminal of its own, and the terminal."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", "from deploy.cli import main; main()", *arguments, "--grpc", router.address]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "160"}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        try:
            yield process, ours
        finally:
            process.kill()
    os.close(ours)


def read_until(terminal: int, text: str) -> str:
    """Reads the terminal until `text` shows; the test's own time limit ends a wait in vain."""
    shown = ""
    while text not in shown:
        shown += os.read(terminal, 4096).decode(errors="replace")
    return shown


def read_to_end(terminal: int) -> str:
    """What the process still writes; one whose terminal nobody reads cannot end."""
    shown = ""
    with contextlib.suppress(OSError):  # how a terminal says that its other end is closed
        while data := os.read(terminal, 4096):
            shown += data.decode(errors="replace")
    return shown


def test_terminal_ctrl_c_stops_watching_and_says_that_the_order_goes_on(router: FakeRouter) -> None:
    router.steps = [step("ORDERED", "told"), step("CHANGED", num_leaving=3)]
    router.hangs = True
    with in_terminal(router, *SET) as (process, terminal):
        read_until(terminal, "changed, 3 request(s) still to leave")
        process.send_signal(signal.SIGINT)
        shown = read_to_end(terminal)
        assert "stopped watching; the order goes on: `baton roles show` says where it stands" in shown
        assert process.wait(WAIT_S) == 130
    assert router.is_cancelled.wait(WAIT_S)


def test_terminal_shows_that_the_router_went_away_in_mid_order(router: FakeRouter) -> None:
    router.steps = [step("ORDERED", "told")]
    router.hangs = True
    with in_terminal(router, *SET) as (process, terminal):
        read_until(terminal, "0.0 s  told")
        router.close()
        assert "the order may go on: `baton roles show` says where it stands" in read_to_end(terminal)
        assert process.wait(WAIT_S) == 1


def test_terminal_top_shows_an_error_while_the_router_is_away_and_ctrl_c_ends_it(router: FakeRouter) -> None:
    with in_terminal(router, "top", "--interval", "0.05") as (process, terminal):
        read_until(terminal, "model demo: ready")
        router.close()
        read_until(terminal, "does not answer: UNAVAILABLE; trying again")
        process.send_signal(signal.SIGINT)
        read_to_end(terminal)
        assert process.wait(WAIT_S) == 0
