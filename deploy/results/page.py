"""`docs/results.md` from the records: every claim, the command that shows it, what it printed, when and where."""

from collections.abc import Mapping, Sequence
from itertools import groupby

from deploy.results.claim import Claim
from deploy.results.record import Record

HEAD = """# Results

Every claim with the command that shows it, the date and the machine. Made by `make results` from `docs/results/`; not
to be edited. `baton results run NAME` runs one again, `baton results page` only writes this page. Machines like these
are shared: compare figures within a run, not between runs. A check says whether a target is met or **missed**.
"""


def results_page(claims: Sequence[Claim], records: Mapping[str, Record]) -> str:
    """The page.

    Args:
        claims: in order.
        records: by the claim's name; a claim without one says so.
    """
    parts = [HEAD, _overview(claims, records)]
    for section, members in groupby(claims, key=lambda claim: claim.section):
        parts.append(f"## {section}\n")
        parts += [_section(claim, records.get(claim.name)) for claim in members]
    return "\n".join(parts)


def _overview(claims: Sequence[Claim], records: Mapping[str, Record]) -> str:
    rows = [f"| [{claim.name}](#{claim.name}) | {_verdict(records.get(claim.name))} |" for claim in claims]
    return "\n".join(("| claim | outcome |", "|---|---|", *rows, ""))


def _verdict(record: Record | None) -> str:
    if record is None:
        return "not run yet"
    missed = [check["name"] for check in record.checks if not check["holds"]]
    if missed:
        return (
            f"{len(record.checks) - len(missed)} of {len(record.checks)} targets met; **missed:** {', '.join(missed)}"
        )
    if record.exit_code:
        return f"**failed**, exit status {record.exit_code}"
    return f"all {len(record.checks)} targets met" if record.checks else "passed"


def _section(claim: Claim, record: Record | None) -> str:
    title = f"### {claim.name}\n\n{claim.says}\n"
    if record is None:
        return f"{title}\n`{' '.join(claim.arguments(None))}`: not run yet.\n"
    about = f"{record.date}, revision {record.revision}, {record.took_s:.0f} s; {record.machine}."
    shown = f"```console\n$ {record.command}\n{record.output}\n```\n"
    return "\n".join(part for part in (title, about, "", shown, _checks(record)) if part is not None)


def _checks(record: Record) -> str | None:
    if not record.checks:
        return None
    rows = [
        f"| `{check['name']}` | {check['value']:.4g} {check['unit']} | {check['target']} | "
        f"{'met' if check['holds'] else '**missed**'} |"
        for check in record.checks
    ]
    return "\n".join(("| check | value | target | |", "|---|---|---|---|", *rows, ""))
