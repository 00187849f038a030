"""Shows how an order about roles goes, until it has ended. Ctrl-C ends the showing, not the order."""

import contextlib
from collections.abc import Callable, Iterator

import typer
from baton.v1 import control_pb2
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from core.errors import InvalidRequestError, StaleEpochError, UnreachableError
from deploy.commands.options import output_console, print_error
from deploy.commands.roles_tables import stage_word
from deploy.roles_client import Progress

FAILED, REFUSED, INTERRUPTED = 1, 2, 130  # exit codes; the last as the shell has it for SIGINT
REFRESHES_PER_S = 10
WHERE_IT_STANDS = "`baton roles show` says where it stands"

Show = Callable[[control_pb2.RoleProgress], object]


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Within, an order that the router or a worker refuses ends the command with exit code 2: nothing has changed.

    Other errors are failures, whose outcome may not be known: nobody answers, somebody has too late, or was lost.
    """
    try:
        yield
    except (InvalidRequestError, StaleEpochError) as error:
        print_error(error)
        raise typer.Exit(REFUSED) from error


def watch(progress: Progress) -> None:
    """Shows an order's progress and how it ended: a live line per worker in a terminal, else a line per change.

    Raises:
        typer.Exit: with 1 when it failed, 2 when it was refused, 130 after Ctrl-C.
        UnreachableError: the router went away; the order may go on.
    """
    console = output_console()
    with contextlib.closing(progress):
        try:
            last = _follow(progress, console)
        except KeyboardInterrupt:
            console.print(Text(f"stopped watching; the order goes on: {WHERE_IT_STANDS}"), soft_wrap=True)
            raise typer.Exit(INTERRUPTED) from None
    if last.stage not in (control_pb2.ROLE_STAGE_CHANGED, control_pb2.ROLE_STAGE_VERIFIED):
        raise typer.Exit(FAILED)


def _follow(progress: Progress, console: Console) -> control_pb2.RoleProgress:
    """Shows all of it; returns the last."""
    with refusals():
        step = next(progress)
        with _showing(console) as show:
            try:
                while True:
                    show(step)
                    if step.is_last:
                        return step
                    step = next(progress)
            except UnreachableError as error:
                raise UnreachableError(f"{error.message}; the order may go on: {WHERE_IT_STANDS}") from error


@contextlib.contextmanager
def _showing(console: Console) -> Iterator[Show]:
    board = ProgressBoard()
    if not console.is_terminal:
        yield lambda step: _print_if_new(board, step, console)
        return
    with Live(console=console, get_renderable=board.lines, refresh_per_second=REFRESHES_PER_S):
        yield board.update


def _print_if_new(board: "ProgressBoard", step: control_pb2.RoleProgress, console: Console) -> None:
    if board.update(step):
        console.print(progress_line(step), soft_wrap=True)


class ProgressBoard:
    """The latest progress of each worker that an order concerns, and how all of it ended."""

    def __init__(self) -> None:
        self._steps: dict[str, control_pb2.RoleProgress] = {}

    def update(self, step: control_pb2.RoleProgress) -> bool:
        """Takes it in; whether it says something new, the time apart."""
        key = "" if step.is_last else step.worker
        before = self._steps.get(key)
        self._steps[key] = step
        return before is None or _without_time(before) != _without_time(step)

    def lines(self) -> Group:
        """All workers, in the order in which they were first heard of."""
        return Group(*map(progress_line, self._steps.values()))


def progress_line(step: control_pb2.RoleProgress) -> Text:
    """The time since the order, and what the router says; or the stage, when it says nothing."""
    left = f", {step.num_leaving} request(s) still to leave" if step.num_leaving else ""
    said = step.message or f"{step.worker or 'all workers'}: {stage_word(step.stage)}{left}"
    return Text(f"{step.elapsed_s:6.1f} s  {said}")


def _without_time(step: control_pb2.RoleProgress) -> tuple[int, str, int]:
    return step.stage, step.message, step.num_leaving
