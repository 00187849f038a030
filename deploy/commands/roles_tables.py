"""What routers say about roles, as tables and lines for people."""

from datetime import UTC, datetime

from baton.v1 import common_pb2, control_pb2, worker_pb2
from rich.console import Console
from rich.table import Table
from rich.text import Text

from deploy.proto_dict import enum_word

ROLE_COLUMNS = ("worker", "role", "held", "since", "queued", "running", "leaving", "last change")
CHANGE_COLUMNS = (
    "at", "worker", "change", "stage", "by", "in role s", "first work s", "verified s", "moved", "placed again",
    "ended there", "why",
)  # fmt: skip
ACTION_COLUMNS = ("at", "who", "what", "outcome")
SPLIT_COLUMNS = ("prefill", "decode", "mixed", "goodput/s", "TTFT s", "TPOT s")
MINUTE_S, HOUR_S = 60, 3600


def role_word(role: int) -> str:
    """`prefill`, `decode`, `mixed`."""
    return enum_word(common_pb2.Role.DESCRIPTOR, role)


def stage_word(stage: int) -> str:
    """`ordered`, `changed`, `verified`, `failed`."""
    return enum_word(control_pb2.RoleStage.DESCRIPTOR, stage)


def hold_words(state: worker_pb2.RoleState) -> str:
    """Why a worker's role or work is not the controller's to choose: pinned, cordoned, leaving, or a dash."""
    holds = (("pinned", state.is_pinned), ("cordoned", state.is_cordoned), ("leaving", state.is_leaving))
    words = [word for word, is_so in holds if is_so]
    return ", ".join(words) or "-"


def clock_time(unix_s: float) -> str:
    """A moment in this machine's time zone."""
    return datetime.fromtimestamp(unix_s, tz=UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def time_span(seconds: float) -> str:
    """A time in the largest unit of which there is at least one."""
    if seconds < MINUTE_S:
        return f"{seconds:.0f} s"
    return f"{seconds / MINUTE_S:.0f} min" if seconds < HOUR_S else f"{seconds / HOUR_S:.1f} h"


def change_roles(change: control_pb2.RoleChange) -> str:
    """From what to what; the one role when it stays, as in a drain."""
    before, after = role_word(getattr(change, "from")), role_word(change.to)  # `from` is a word of Python
    return after if before == after else f"{before} -> {after}"


def header_line(answer: control_pb2.GetRolesResponse) -> str:
    """Whether roles follow the load, whether this router decides (else it cannot tell who does), and the limits."""
    auto = "automatic roles are on" if answer.is_auto else "automatic roles are off"
    leader = "this router decides" if answer.is_leader else "this router does not decide"
    return (
        f"{auto}; {leader}; limits: TTFT {answer.ttft_limit_s * 1000:.0f} ms, "
        f"TPOT {answer.tpot_limit_s * 1000:.0f} ms"
    )


def print_alarms(answer: control_pb2.GetRolesResponse, console: Console) -> None:
    """One red line each."""
    for alarm in answer.alarms:
        console.print(Text(f"alarm: {alarm}", style="bold red"), soft_wrap=True)


def print_roles(answer: control_pb2.GetRolesResponse, console: Console) -> None:
    """A header, alarms, and one line per worker."""
    console.print(header_line(answer))
    print_alarms(answer, console)
    table = Table(*ROLE_COLUMNS, box=None, header_style="dim")
    for worker in answer.workers:
        table.add_row(
            worker.worker.name,
            role_word(worker.state.role),
            hold_words(worker.state),
            time_span(worker.since_s),
            f"{worker.queued_prompts}",
            f"{worker.running_sequences}",
            f"{worker.num_leaving}",
            last_change(worker),
        )
    console.print(table)


def last_change(worker: control_pb2.WorkerRole) -> Text:
    """What changed last, how far that has come and why; red when it failed, a dash when nothing has changed."""
    if not worker.HasField("last_change"):
        return Text("-")
    change = worker.last_change
    why = change.message or change.reason
    style = "red" if change.stage == control_pb2.ROLE_STAGE_FAILED else ""
    told = f"{clock_time(change.ordered_at)} {change_roles(change)} {stage_word(change.stage)}, by {change.actor}"
    return Text(f"{told}: {why}" if why else told, style=style)


def print_changes(answer: control_pb2.ListRoleChangesResponse, console: Console) -> None:
    """One line per change of role."""
    if not answer.changes:
        console.print("no role has changed yet")
        return
    table = Table(*CHANGE_COLUMNS, box=None, header_style="dim")
    for change in answer.changes:
        table.add_row(
            clock_time(change.ordered_at),
            change.worker,
            change_roles(change),
            stage_word(change.stage),
            Text(change.actor),
            *(f"{seconds:.2f}" if seconds else "-" for seconds in _times(change)),
            f"{change.num_migrated}",
            f"{change.num_returned}",
            f"{change.num_finished}",
            Text(": ".join(filter(None, (change.reason, change.message)))),
            style="red" if change.stage == control_pb2.ROLE_STAGE_FAILED else None,
        )
    console.print(table)


def _times(change: control_pb2.RoleChange) -> tuple[float, float, float]:
    return change.changed_s, change.first_work_s, change.verified_s


def describe_change(change: control_pb2.RoleChange) -> str:
    """What a change of role took, and what became of the requests that it concerned."""
    names = ("in its role", "first work", "verified")
    times = [f"{name} after {time_s:.2f} s" for name, time_s in zip(names, _times(change), strict=True) if time_s]
    parts = [
        ", ".join([f"{change.worker}: {change_roles(change)} {stage_word(change.stage)}", *times]),
        f"{change.num_migrated} moved, {change.num_returned} placed again, {change.num_finished} ended there",
    ]
    return "; ".join(filter(None, (*parts, change.message)))


def print_actions(answer: control_pb2.ListOperatorActionsResponse, console: Console) -> None:
    """One line per order of an operator."""
    if not answer.actions:
        console.print("no operator has ordered anything yet")
        return
    table = Table(*ACTION_COLUMNS, box=None, header_style="dim")
    for action in answer.actions:
        table.add_row(clock_time(action.at), Text(action.actor), Text(action.action), Text(action.outcome))
    console.print(table)


def print_decisions(answer: control_pb2.ListRoleDecisionsResponse, console: Console) -> None:
    """The sentence of each decision, its numbers, and the splits it compared."""
    if not answer.decisions:
        console.print("the controller has decided nothing yet; `baton roles show` says whether it is on")
        return
    for decision in answer.decisions:
        _print_decision(decision, console)


def _print_decision(decision: control_pb2.RoleDecision, console: Console) -> None:
    now, wanted = (decision.num_prefill, decision.num_decode), (decision.wanted_prefill, decision.wanted_decode)
    split = _split(*now) if now == wanted else f"{_split(*now)} -> {_split(*wanted)}"
    console.print(Text(f"{clock_time(decision.at)}  {split}: {decision.reason}", style="bold"), soft_wrap=True)
    for flip in decision.flips:
        console.print(f"  flip: {flip.worker} to {role_word(flip.role)}")
    if decision.numbers:
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in sorted(decision.numbers.items()))
        console.print(Text(f"  {numbers}"), soft_wrap=True)
    if decision.options:
        console.print(_options_table(decision))


def _split(num_prefill: int, num_decode: int) -> str:
    return f"{num_prefill} prefill + {num_decode} decode"


def _options_table(decision: control_pb2.RoleDecision) -> Table:
    table = Table(*SPLIT_COLUMNS, box=None, header_style="dim")
    for option in decision.options:
        scores = (option.goodput, option.ttft_s, option.tpot_s)
        numbers = (option.num_prefill, option.num_decode, option.num_mixed)
        table.add_row(*map(str, numbers), *(f"{score:.3g}" for score in scores))
    return table
