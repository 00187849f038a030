"""`baton simulate --validate`: predictions of the simulator beside what a cluster on this machine does."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from deploy.bench.checks import print_checks, write_result
from deploy.commands.options import output_console
from deploy.commands.serve import progress_lines

DURATION_S = 90.0  # some hundred requests, whose median moves by a few percent from run to run
WARM_UP_S = 25.0  # in which workers correct what they measured alone
COLUMNS = {"ttft_ms_p50": "TTFT p50, ms", "tpot_ms_p50": "TPOT p50, ms", "goodput": "goodput, 1/s"}


def validate(model: Path | None, seed: int, json_file: Path | None) -> None:
    """Starts a cluster of one prefill and one decode worker, compares three loads on it, and stops it.

    Args:
        model: checkpoint folder; None for the demo model.
        seed: of the loads.
        json_file: where all figures are written; None for nowhere.
    """
    from deploy.demo_model import ensure_demo_model  # noqa: PLC0415 - see `deploy.commands.bench`
    from deploy.load.progress import progress_of  # noqa: PLC0415 - likewise
    from deploy.validation.validation import Validation  # noqa: PLC0415 - likewise

    console = Console(stderr=True, highlight=False)
    say = progress_lines(console)
    plan = Validation(DURATION_S, WARM_UP_S, seed, lambda run: progress_of(run, console))
    result = plan.run(model or ensure_demo_model(), say)
    write_result(result, json_file)
    print_validation(result, output_console())


def print_validation(result: dict[str, Any], console: Console) -> None:
    """A line for each load and figure: predicted, measured, and by how much the prediction is off."""
    table = Table("load", "requests/s", "", "predicted", "measured", "off by", box=None, header_style="dim")
    for load in result["loads"]:
        for name, shown in COLUMNS.items():
            predicted, measured = load["predicted"][name], load["measured"][name]
            off = f"{100 * (predicted / measured - 1):+.0f} %" if measured else "-"
            table.add_row(load["name"], f"{load['rate']:.2f}", shown, f"{predicted:.4g}", f"{measured:.4g}", off)
    console.print(table)
    print_checks(result["checks"], console)
