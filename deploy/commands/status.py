"""`baton status`: processes, roles, load and blocks of a running cluster, and what moves between its workers."""

import json
from collections.abc import Sequence

import typer
from baton.v1 import common_pb2, control_pb2, worker_pb2
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from deploy.commands.options import AsJson, Grpc, Port, output_console, router_address
from deploy.proto_dict import as_dict, enum_word
from deploy.status_client import get_status

COLUMNS = (
    "worker", "role", "ranks", "queued", "tokens", "running", "incoming",
    "free", "cached", "held", "leased", "quarant.", "prompt tok", "hit rate", "fetched", "fetches", "decode tok",
    "sent", "received", "cost error",
)  # fmt: skip
PAIR_COLUMNS = (
    "from",
    "to",
    "over",
    "direction",
    "handoffs",
    "MB",
    "GB/s",
    "hidden",
    "retried",
    "expired",
    "failures",
)
MEMBER_COLUMNS = ("process", "state", "address", "pid", "restarts", "why it does not run")
MB, GB = 1e6, 1e9


def status(
    *,
    port: Port = None,
    grpc: Grpc = None,
    as_json: AsJson = False,
) -> None:
    """Show workers, roles, load, KV blocks and transfers."""
    answer = get_status(router_address(port, grpc))
    if as_json:
        typer.echo(json.dumps(as_dict(answer), indent=2))
    else:
        print_status(answer, output_console())


def print_status(answer: control_pb2.GetStatusResponse, console: Console) -> None:
    """One line per worker, one per router or worker in trouble, and one per pair of workers that have exchanged KV.

    `fetched` are prompt tokens that came from peers, `fetches` how often any came of how often they were asked for;
    `cost error` is how far predicted steps are from real ones, prompt and decode.
    """
    state = answer.unready_reason or "ready"
    console.print(f"model [bold]{answer.model}[/]: {state}; {answer.active_requests} request(s) active")
    table = Table(*COLUMNS, box=None, header_style="dim")
    for worker in answer.workers:
        hello, load = worker.hello, worker.load
        table.add_row(
            hello.endpoint.worker.name,
            enum_word(common_pb2.Role.DESCRIPTOR, hello.role_state.role),
            describe_topology(hello.topology),
            f"{load.queued_prompts}",
            f"{load.pending_prompt_tokens}",
            f"{load.running_sequences}",
            f"{load.incoming_handoffs}",
            f"{load.blocks_free}",
            f"{load.blocks_cached}",
            f"{load.blocks_running}",
            f"{load.blocks_leased}",
            f"{load.blocks_quarantined}",
            f"{load.prompt_tokens_computed}",
            hit_rate(load),
            f"{load.prefix_tokens_fetched}",
            f"{load.prefix_fetches - load.prefix_fetches_failed}/{load.prefix_fetches}",
            f"{load.decode_tokens_computed}",
            f"{load.handoffs_sent}",
            f"{load.handoffs_received}",
            f"{load.prefill_cost_error:.0%}/{load.decode_cost_error:.0%}",
        )
    console.print(table)
    if members := shown_members(answer):
        console.print()
        console.print(member_table(members))
    if any(worker.transfers.sent for worker in answer.workers):
        console.print()
        console.print(pair_table(answer))


def shown_members(answer: control_pb2.GetStatusResponse) -> list[control_pb2.MemberStatus]:
    """All routers, and of the workers those that do not run: the others have a line of their own."""
    return [
        member
        for member in answer.members
        if member.kind == control_pb2.MEMBER_KIND_ROUTER or member.state != control_pb2.MEMBER_STATE_RUNNING
    ]


def member_table(members: Sequence[control_pb2.MemberStatus]) -> Table:
    """One line per process, or group of processes of a worker, as their supervisor sees them."""
    table = Table(*MEMBER_COLUMNS, box=None, header_style="dim")
    for member in members:
        table.add_row(
            member.name,
            enum_word(control_pb2.MemberState.DESCRIPTOR, member.state).replace("_", " "),
            member.address or "-",
            ", ".join(f"{process.pid}" for process in member.processes) or "-",
            f"{member.num_restarts}",
            escape(member.reason) or "-",
        )
    return table


def pair_table(answer: control_pb2.GetStatusResponse) -> Table:
    """One line per pair of workers and direction; GB/s while bytes of a handoff are under way.

    `hidden` is the part of the transfer time that passed while the prompt was still being computed. Leases expire at
    the receiving end.
    """
    table = Table(*PAIR_COLUMNS, box=None, header_style="dim")
    for worker in answer.workers:
        for pair in worker.transfers.sent:
            table.add_row(
                worker.hello.endpoint.worker.name,
                pair.peer.name,
                "/".join(filter(None, (pair.transport, pair.path))) or "-",
                pair.direction or "-",
                f"{pair.num_handoffs}",
                f"{pair.num_bytes / MB:.1f}",
                f"{pair.num_bytes / pair.busy_s / GB:.2f}" if pair.busy_s else "-",
                f"{1 - pair.exposed_s / pair.busy_s:.0%}" if pair.busy_s else "-",
                f"{pair.num_retried}",
                f"{num_expired(answer, worker, pair)}",
                ", ".join(f"{code} {count}" for code, count in sorted(pair.failures.items())) or "-",
            )
    return table


def num_expired(
    answer: control_pb2.GetStatusResponse, source: control_pb2.WorkerStatus, pair: worker_pb2.PairTransfers
) -> int:
    """Leases of a pair that expired, as its target says."""
    return sum(
        received.num_expired_leases
        for target in answer.workers
        if target.hello.endpoint.worker == pair.peer
        for received in target.transfers.received
        if received.peer == source.hello.endpoint.worker
    )


def hit_rate(load: worker_pb2.WorkerLoad) -> str:
    """Share of prompt tokens that were found in the prefix cache; a dash before the first prompt."""
    if not load.prefix_query_tokens:
        return "-"
    return f"{load.prefix_hit_tokens / load.prefix_query_tokens:.0%}"


def describe_topology(topology: common_pb2.ShardTopology) -> str:
    """Number of ranks and what they share: `1`, `2 T` (tensors), `2 E` (experts), `2 TE` (both)."""
    sizes = {"T": topology.tensor_parallel_size, "E": topology.expert_parallel_size}
    shared = "".join(letter for letter, size in sizes.items() if size > 1)
    return f"{max(1, *sizes.values())} {shared}".rstrip()
