"""`baton down`, of a process that stands for a cluster: which signals it gets, and when."""

import subprocess
import sys
from collections.abc import Callable, Iterator

import psutil
import pytest

from core.errors import ConfigError
from core.processes import started_after_boot_s
from deploy.commands import down as down_command
from deploy.commands.down import down
from deploy.run_record import RunRecord

WAIT_S = 30.0
CLUSTER = """
import signal, sys
def ended(number, frame):
    sys.exit({quit_code} if number == signal.SIGQUIT else {term_code})
signal.signal(signal.SIGTERM, {on_term})
signal.signal(signal.SIGQUIT, ended)
print("ready", flush=True)
while True:
    signal.pause()
"""
BY_TERM, BY_QUIT = 3, 4

Start = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def run(on_term: str) -> "subprocess.Popen[str]":
        script = CLUSTER.format(on_term=on_term, quit_code=BY_QUIT, term_code=BY_TERM)
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        started_s = started_after_boot_s(psutil.Process(process.pid))
        record = RunRecord(process.pid, started_s, "http://h:1", "h:2", "m", "/logs", drain_timeout_s=WAIT_S)
        monkeypatch.setattr(down_command, "find_cluster", lambda _port: record)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate(timeout=WAIT_S)


def test_cluster_is_asked_to_let_requests_end(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    cluster = start("ended")
    down()
    assert cluster.wait(WAIT_S) == BY_TERM
    assert capsys.readouterr().out == "stopped http://h:1\n"


def test_now_waits_for_no_request(start: Start) -> None:
    cluster = start("ended")
    down(now=True)
    assert cluster.wait(WAIT_S) == BY_QUIT


def test_requests_that_do_not_end_in_the_time_given_are_not_waited_for(start: Start) -> None:
    cluster = start("signal.SIG_IGN")
    down(drain_timeout_s=0.1)
    assert cluster.wait(WAIT_S) == BY_QUIT


def test_cluster_that_does_not_stop_is_killed(
    start: Start, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(down_command, "STOP_TIMEOUT_S", 0.1)
    cluster = start("signal.SIG_IGN")
    monkeypatch.setattr("deploy.commands.down.signal.SIGQUIT", 0)  # it hears nothing
    down(drain_timeout_s=0.0)
    assert cluster.wait(WAIT_S) < 0
    assert "1 process(es) had to be killed" in capsys.readouterr().out


@pytest.mark.parametrize(("timeout_s", "now"), [(5.0, True), (-1.0, False), (float("inf"), False)])
def test_times_that_make_no_sense_are_refused(timeout_s: float, *, now: bool) -> None:
    with pytest.raises(ConfigError, match="--drain-timeout-s is"):
        down(drain_timeout_s=timeout_s, now=now)
