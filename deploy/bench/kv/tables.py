"""The figures of `baton bench kv` for people."""

from typing import Any

from rich.console import Console
from rich.table import Table

from deploy.bench.checks import print_checks
from deploy.bench.kv.byte_rates import size_text

WHOLE_MS = 100  # from here on tenths mean nothing


def print_kv_result(result: dict[str, Any], console: Console) -> None:
    """Tables, then the checks."""
    _print_rates(result["bytes"], console)
    _print_handoffs(result["handoffs"], console)
    overhead = result["overhead"]
    console.print(
        f"beside its bytes a handoff takes {overhead['ms_p50']:.2f} ms (p50 of {overhead['count']}; p95 "
        f"{overhead['ms_p95']:.2f} ms), {overhead['acknowledge_ms_p50']:.2f} ms of it after the last block's arrival"
    )
    print_checks(result["checks"], console)


def _print_rates(measured: dict[str, Any], console: Console) -> None:
    rates = measured["gb_per_s"]
    sizes = next(iter(rates.values()))
    table = Table("GB/s, blocks of", *map(size_text, sizes), box=None, header_style="dim")
    for name, by_size in rates.items():
        table.add_row(name, *(f"{rate:.2f}" for rate in by_size.values()))
    console.print(table)
    for name, reason in measured["skipped"].items():
        console.print(f"{name} was left out: {reason}", soft_wrap=True)


def _print_handoffs(handoffs: dict[str, Any], console: Console) -> None:
    columns = {
        "alone": "colocated_ttft_ms",
        "TTFT": "ttft_ms",
        "second": "second_token_ms",
        "bytes": "transfer_ms",
        "exposed": "exposed_ms",
        "acked": "after_prompt_ms",
    }
    first = next(iter(handoffs.values()))
    console.print(f"prompt of {first['prompt_tokens']}, {first['megabytes']:.1f} MB; ms:")
    table = Table("", *columns, "hidden", "idle", box=None, header_style="dim")
    for name, run in handoffs.items():
        figures = (f"{run[key]:,.0f}" if run[key] >= WHOLE_MS else f"{run[key]:.1f}" for key in columns.values())
        table.add_row(name, *figures, f"{run['hidden_fraction']:.1%}", f"{run['idle_cpu_fraction']:.1%}")
    console.print(table)
