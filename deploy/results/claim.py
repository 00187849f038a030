"""What Baton says of itself, and the command that shows it. Which claims there are: `claims.toml`."""

import shutil
import tomllib
from dataclasses import dataclass
from pathlib import Path

from core.errors import ConfigError

CLAIMS_FILE = Path(__file__).with_name("claims.toml")
PROGRAMS = ("baton", "pytest")
TRACES = "{traces}"
"""Stands in an argument for the folder of published traces, which are not part of Baton."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim.

    Attributes:
        name: of its record, and of its section on the page.
        says: what is claimed: a few sentences of Markdown.
        command: program, one of `PROGRAMS`, and its arguments. `baton` is also given `--json`, for its checks.
        about_s: seconds that it takes on two cores, about.
        section: the claims of one section stand together.
        needs: programs of others that must be on the path.
    """

    name: str
    says: str
    command: tuple[str, ...]
    about_s: float
    section: str
    needs: tuple[str, ...] = ()

    def missing(self, traces: Path | None) -> str | None:
        """What it needs and is not there, for people; None when it can be run.

        Args:
            traces: folder of published traces; None where there is none.
        """
        if traces is None and any(TRACES in argument for argument in self.command):
            return "--traces DIR"
        programs = [program for program in self.needs if shutil.which(program) is None]
        return f"{' and '.join(programs)} on the PATH" if programs else None

    def arguments(self, traces: Path | None) -> tuple[str, ...]:
        """The command with the folder of traces put in; as a reader would type it, without one."""
        return tuple(argument.replace(TRACES, str(traces) if traces else "TRACES") for argument in self.command)


def read_claims(path: Path = CLAIMS_FILE) -> tuple[Claim, ...]:
    """All claims, in the order of the page.

    Raises:
        ConfigError: the file holds something else.
    """
    sections = tomllib.loads(path.read_text(encoding="utf-8"))
    claims = []
    for section, entries in sections.items():
        for name, entry in entries.items():
            command = tuple(entry["command"].split())
            if not command or command[0] not in PROGRAMS:
                raise ConfigError(
                    f"claim {name} in {path} runs {entry['command']!r}; it must be {' or '.join(PROGRAMS)}"
                )
            claims.append(
                Claim(
                    name,
                    " ".join(entry["says"].split()),
                    command,
                    float(entry["about_s"]),
                    section,
                    tuple(entry.get("needs", ())),
                )
            )
    return tuple(claims)


def chosen_claims(claims: tuple[Claim, ...], names: tuple[str, ...]) -> tuple[Claim, ...]:
    """Those of these names, or all where none is named.

    Raises:
        ConfigError: there is no such claim.
    """
    known = {claim.name for claim in claims}
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(f"there is no claim {unknown[0]!r}; take some of {', '.join(sorted(known))}")
    return tuple(claim for claim in claims if not names or claim.name in names)
