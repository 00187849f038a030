"""`baton results`: runs the commands that show what Baton claims, and writes the page that holds them."""

import subprocess
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from core.errors import ConfigError
from deploy.commands.options import output_console
from deploy.results.claim import Claim, chosen_claims, read_claims
from deploy.results.page import results_page
from deploy.results.record import Record, read_record, write_record
from deploy.results.running import run_claim

ROOT = Path(__file__).parents[2]
RECORDS, PAGE = Path("docs", "results"), Path("docs", "results.md")

results_app = typer.Typer(help="Claims, and the commands that show them.", no_args_is_help=True)


@results_app.command("run")
def run(
    *,
    names: Annotated[list[str] | None, typer.Argument(help="Claims to show. Default: all.")] = None,
    traces: Annotated[
        Path | None, typer.Option(help="Folder of published traces; claims that need it are left out without.")
    ] = None,
) -> None:
    """Run the commands of claims, about an hour for all, keep what they print, and write docs/results.md."""
    root, traces = source_root(), checked_traces(traces)
    claims = chosen_claims(read_claims(), tuple(names or ()))
    console = Console(stderr=True, highlight=False)
    has_failed = False
    for number, claim in enumerate(claims, start=1):
        shown = " ".join(claim.arguments(traces))
        console.print(f"[{number}/{len(claims)}] {claim.name}, about {claim.about_s:.0f} s: {shown}", markup=False)
        if (missing := claim.missing(traces)) is not None:
            console.print(f"left out: it needs {missing}", markup=False)
            continue
        record = _run(claim, root, traces, console)
        has_failed |= record is None or record.exit_code != 0
    write_page(root)
    if has_failed:
        raise typer.Exit(1)


def checked_traces(traces: Path | None) -> Path | None:
    """The folder of `--traces`, absolute, for commands run in another folder than this one.

    Raises:
        ConfigError: there is no such folder.
    """
    if traces is not None and not traces.is_dir():
        raise ConfigError(f"--traces is {traces}, which is no folder; name the folder of the published traces")
    return traces.resolve() if traces is not None else None


def _run(claim: Claim, root: Path, traces: Path | None, console: Console) -> Record | None:
    try:
        record = run_claim(claim, root, traces)
    except subprocess.TimeoutExpired as error:
        console.print(f"{claim.name} did not end in {error.timeout:.0f} s; its record stays as it was", markup=False)
        return None
    write_record(record, root / RECORDS)
    console.print(
        f"{claim.name}: {'holds' if record.holds else 'does not hold'}, {record.took_s:.0f} s", markup=False
    )
    return record


@results_app.command("page")
def page() -> None:
    """Write docs/results.md from what is kept."""
    write_page(source_root())
    output_console().print(f"wrote {PAGE}", markup=False)


def write_page(root: Path) -> None:
    """Replaces the page."""
    (root / PAGE).write_text(current_page(root), encoding="utf-8")


def current_page(root: Path) -> str:
    """The page as the records have it."""
    claims = read_claims()
    found = {claim.name: read_record(claim.name, root / RECORDS) for claim in claims}
    return results_page(claims, {name: record for name, record in found.items() if record is not None})


def source_root() -> Path:
    """Folder of the source code.

    Raises:
        ConfigError: Baton is installed without it.
    """
    if not (ROOT / "pyproject.toml").is_file():
        raise ConfigError(
            f"{ROOT} is no source folder of Baton; results are written from a checkout of the repository"
        )
    return ROOT
