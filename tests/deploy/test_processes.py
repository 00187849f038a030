import os
import signal
import subprocess
import sys

import psutil

from core.processes import ProcessId, started_after_boot_s
from deploy.processes import kill_processes


def test_kill_ends_a_stopped_process_and_leaves_another_of_its_pid_alone() -> None:
    command = [sys.executable, "-S", "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as child:
        process = psutil.Process(child.pid)
        named = ProcessId(child.pid, started_after_boot_s(process))
        os.kill(child.pid, signal.SIGSTOP)
        assert kill_processes([ProcessId(child.pid, named.started_s - 60)])
        assert process.status() != psutil.STATUS_ZOMBIE
        assert kill_processes([named])
        assert child.wait() == -signal.SIGKILL
        assert kill_processes([named])
