"""Measurements in processes of their own, so that what one has loaded or left spinning does not slow the next."""

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from core.errors import InternalError

TIMEOUT_S = 1800.0


def run_job(module: str, job: dict[str, Any]) -> Any:  # noqa: ANN401 - whatever the module prints
    """Runs `python -m module` with a JSON job on its input; returns the JSON in the last line of its output.

    Raises:
        InternalError: it failed; holds the end of what it said.
    """
    finished = subprocess.run(  # noqa: S603 - our own interpreter and modules
        [sys.executable, "-m", module],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    if finished.returncode != 0:
        raise InternalError(f"{module} failed: {finished.stderr[-2000:]}")
    return json.loads(finished.stdout.splitlines()[-1])


def answer_job(measure: Callable[[dict[str, Any]], Any]) -> None:
    """The other side: the main function of such a module."""
    print(json.dumps(measure(json.load(sys.stdin))))
