import subprocess
import sys

import psutil

from tests.processes import of_living


def test_process_that_has_ended_since_it_was_listed_is_left_out() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    here, ended = psutil.Process(), psutil.Process(child.pid)
    child.communicate(b"\n")
    assert of_living([ended, here], psutil.Process.cmdline) == {here: here.cmdline()}
