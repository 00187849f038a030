"""Runs the command of a claim and writes down what came of it."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from deploy.results.claim import Claim
from deploy.results.record import Record, printed
from deploy.results.this_machine import describe_machine

WIDTH = "110"  # of what is printed, in characters: what a page shows without scrolling
MAX_TIME_FACTOR = 10  # of what a command takes: a slow machine is no hang
STOP_TIMEOUT_S = 60.0  # for a command that hangs to end what it has started: a cluster takes some seconds


def run_claim(claim: Claim, root: Path, traces: Path | None) -> Record:
    """Runs it in a process of its own; its progress goes to this terminal.

    Args:
        claim: whose command.
        root: folder of the source code, in which it runs.
        traces: folder of published traces, absolute.

    Raises:
        subprocess.TimeoutExpired: it did not end by itself.
    """
    with tempfile.TemporaryDirectory(prefix="baton-results-") as scratch:
        json_file = Path(scratch) / "figures.json"
        command = [*_program(claim.command[0]), *claim.arguments(traces)[1:]]
        if claim.command[0] == "baton":
            command += ["--json", str(json_file)]
        date, started_s = datetime.now(UTC).date().isoformat(), time.monotonic()
        exit_code, output = run_within(MAX_TIME_FACTOR * claim.about_s + 60, command, root)
        checks = json.loads(json_file.read_text(encoding="utf-8")).get("checks", []) if json_file.is_file() else []
        folders = (Path(scratch), root, *((traces,) if traces else ()), Path.home(), Path(tempfile.gettempdir()))
    return Record(
        name=claim.name,
        command=" ".join(claim.arguments(None)),
        date=date,
        machine=describe_machine(),
        revision=revision(root),
        took_s=round(time.monotonic() - started_s, 1),
        exit_code=exit_code,
        output=printed(output, *folders),
        checks=tuple(checks),
    )


def run_within(timeout_s: float, command: Sequence[str], folder: Path) -> tuple[int, str]:
    """Exit status and standard output of a command.

    One that hangs is interrupted as by Ctrl-C, so that it ends the processes it has started, and killed if it does
    not listen.

    Raises:
        subprocess.TimeoutExpired: it had to be ended.
    """
    with subprocess.Popen(  # noqa: S603 - commands of our own file of claims
        command,
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**os.environ, "COLUMNS": WIDTH, "NO_COLOR": "1", "TERM": "dumb"},
    ) as process:
        try:
            output, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=STOP_TIMEOUT_S)
            process.kill()  # does nothing to what has ended
            raise
    return process.returncode, output


def _program(name: str) -> list[str]:
    """How the programs that are installed beside this interpreter are started."""
    return [sys.executable, "-m", "pytest"] if name == "pytest" else [str(Path(sys.executable).with_name(name))]


def revision(root: Path) -> str:
    """The commit that is checked out, with `+` where files differ from it; `unknown` without git."""
    git = shutil.which("git")
    if git is None:
        return "unknown"

    def ask(*arguments: str) -> str:
        answer = subprocess.run([git, *arguments], cwd=root, capture_output=True, text=True, check=False)  # noqa: S603
        return answer.stdout.strip()

    is_changed = ask(
        "status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs/results", ":!docs/results.md"
    )
    return (ask("rev-parse", "--short=10", "HEAD") or "unknown") + ("+" if is_changed else "")
