"""One frame of `baton top`: workers by role, what they do, and what has just happened."""

from collections.abc import Mapping

from baton.v1 import common_pb2, control_pb2, worker_pb2
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from deploy.commands.roles_tables import clock_time, describe_change, header_line, hold_words, role_word
from deploy.fleet_view import FleetView

COLUMNS = (
    "role", "worker", "held", "queued", "prompt tok left", "running", "incoming", "KV use", "", "prompt tok/s",
    "decode tok/s", "migrating",
)  # fmt: skip
ROLE_ORDER = (common_pb2.ROLE_PREFILL, common_pb2.ROLE_MIXED, common_pb2.ROLE_DECODE)
BAR_WIDTH = 20
FULL = 0.9  # use of a pool from which on it is shown as nearly full
NUM_CHANGES, NUM_EVENTS = 5, 8  # shown at most


def frame(view: FleetView, trouble: str = "") -> RenderableType:
    """The whole frame. `trouble` says why what is shown is not of now; empty when it is."""
    status, roles = view.latest.status, view.latest.roles
    state = status.unready_reason or "ready"
    parts: list[RenderableType] = [
        Text(f"model {status.model}: {state}; {status.active_requests} request(s) active"),
        Text(header_line(roles)),
        *(Text(f"alarm: {alarm}", style="bold red") for alarm in roles.alarms),
        worker_table(view),
        *change_lines(view),
        *event_lines(view),
    ]
    if trouble:
        parts.insert(0, Text(f"{trouble}; trying again", style="bold red"))
    return Group(*parts)


def worker_table(view: FleetView) -> Table:
    """One line per worker, by role, then by name."""
    table = Table(*COLUMNS, box=None, header_style="dim")
    workers = view.latest.status.workers
    states = {worker.hello.endpoint.worker.name: worker.hello.role_state for worker in workers}
    states.update({worker.worker.name: worker.state for worker in view.latest.roles.workers})  # asked for later
    for worker in sorted(workers, key=lambda w: _place(w, states)):
        name, load = worker.hello.endpoint.worker.name, worker.load
        rates = view.rates(name)
        used = kv_use(worker)
        table.add_row(
            role_word(states[name].role),
            name,
            hold_words(states[name]),
            f"{load.queued_prompts}",
            f"{load.pending_prompt_tokens}",
            f"{load.running_sequences}",
            f"{load.incoming_handoffs}",
            bar(used),
            f"{used:.0%}",
            f"{rates.prompt_tokens_per_s:,.0f}" if rates else "-",
            f"{rates.decode_tokens_per_s:,.0f}" if rates else "-",
            f"{load.migrations_open}" if load.migrations_open else "-",
        )
    return table


def _place(worker: control_pb2.WorkerStatus, states: Mapping[str, worker_pb2.RoleState]) -> tuple[int, str]:
    name = worker.hello.endpoint.worker.name
    role = states[name].role
    return ROLE_ORDER.index(role) if role in ROLE_ORDER else len(ROLE_ORDER), name


def kv_use(worker: control_pb2.WorkerStatus) -> float:
    """The part of the blocks that somebody needs: all but free and cached ones."""
    load = worker.load
    available = load.blocks_free + load.blocks_cached
    return 1 - available / load.blocks_total if load.blocks_total else 0.0


def bar(part: float) -> Text:
    """A part of one as a bar."""
    filled = round(part * BAR_WIDTH)
    bar_text = Text("█" * filled, style="red" if part >= FULL else "green")
    return bar_text.append("░" * (BAR_WIDTH - filled), style="dim")


def change_lines(view: FleetView) -> list[Text]:
    """The latest changes of role, newest first."""
    changes = view.latest.changes.changes[:NUM_CHANGES]
    lines = [
        Text(
            f"  {clock_time(change.ordered_at)}  {describe_change(change)}",
            style="red" if change.stage == control_pb2.ROLE_STAGE_FAILED else "",
        )
        for change in changes
    ]
    return [Text("\nflips", style="dim"), *lines] if lines else []


def event_lines(view: FleetView) -> list[Text]:
    """The latest migrations, newest first."""
    latest = list(view.events)[-NUM_EVENTS:]
    lines = [Text(f"  {e.worker}: {e.text}", style="red" if e.is_bad else "") for e in reversed(latest)]
    return [Text("\nmigrations", style="dim"), *lines] if lines else []
