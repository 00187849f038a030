import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import psutil
import pytest

from core.processes import ProcessId, has_ended, started_after_boot_s, this_process

WAIT_FOR_INPUT = "import sys; sys.stdin.read()"
LEAVE_A_THREAD_BEHIND = """
import ctypes, sys, threading
threading.Thread(target=sys.stdin.read).start()
print(flush=True)
ctypes.CDLL(None).pthread_exit(None)
"""


@pytest.fixture
def child() -> Iterator["subprocess.Popen[bytes]"]:
    """A process that runs until its input ends."""
    with subprocess.Popen([sys.executable, "-S", "-c", WAIT_FOR_INPUT], stdin=subprocess.PIPE) as process:
        yield process


def id_of(process: "subprocess.Popen[bytes]") -> ProcessId:
    return ProcessId(process.pid, started_after_boot_s(psutil.Process(process.pid)))


def test_process_is_found_until_it_ends(child: "subprocess.Popen[bytes]") -> None:
    named = id_of(child)
    found = named.find()
    assert found is not None
    assert found.pid == child.pid
    child.communicate()
    assert named.find() is None


def test_process_nobody_waited_for_has_ended(child: "subprocess.Popen[bytes]") -> None:
    assert child.stdin is not None
    named = id_of(child)
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert named.find() is None


def test_other_process_with_the_same_pid_is_not_it() -> None:
    me = this_process()
    assert me.find() == psutil.Process()
    assert replace(me, started_s=me.started_s - 60).find() is None


def test_process_runs_until_its_last_thread_has_ended() -> None:
    """Its first thread has ended, so that the system calls it a zombie; another may still copy memory."""
    command = [sys.executable, "-c", LEAVE_A_THREAD_BEHIND]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        process = psutil.Process(child.pid)
        while process.status() != psutil.STATUS_ZOMBIE:
            pass
        assert not has_ended(process)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert has_ended(process)
