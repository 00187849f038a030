"""What came of running the command of a claim: its output, its checks, when and where. Kept as a file here."""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from core.errors import ConfigError

MAX_OUTPUT_CHARS = 20_000  # a page is read by people


@dataclass(frozen=True, slots=True)
class Record:
    """A run.

    Attributes:
        name: of the claim.
        command: as a reader would type it.
        date: of its start, `YYYY-MM-DD`, in UTC.
        machine: see `this_machine`.
        revision: commit of the code, with `+` where files were changed since.
        took_s: seconds.
        exit_code: of the command.
        output: what it printed.
        checks: targets, see `deploy.bench.checks`; empty for a test.
    """

    name: str
    command: str
    date: str
    machine: str
    revision: str
    took_s: float
    exit_code: int
    output: str
    checks: tuple[dict[str, Any], ...] = ()

    @property
    def holds(self) -> bool:
        """Whether the command succeeded, and every check holds."""
        return self.exit_code == 0 and all(check["holds"] for check in self.checks)


def printed(output: str, *folders: Path) -> str:
    """What a command printed, without colours and the names of the folders it ran in, and no longer than a page.

    Args:
        output: as it came.
        folders: absolute, those within others first.
    """
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output)
    for folder in folders:
        if folder.name:  # the root is the beginning of every path
            text = text.replace(str(folder), "...")
    lines = [line.rstrip() for line in text.strip("\n").splitlines()]
    text = "\n".join(lines)
    return text if len(text) <= MAX_OUTPUT_CHARS else f"{text[:MAX_OUTPUT_CHARS]}\n[cut here]"


def write_record(record: Record, folder: Path) -> None:
    """Replaces the record of the claim."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(asdict(record), indent=1, ensure_ascii=False)
    (folder / f"{record.name}.json").write_text(f"{text}\n", encoding="utf-8")


def read_record(name: str, folder: Path) -> Record | None:
    """The record of a claim; None where it has never been run.

    Raises:
        ConfigError: the file is no record.
    """
    path = folder / f"{name}.json"
    if not path.is_file():
        return None
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        return Record(**{**fields, "checks": tuple(fields["checks"])})
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            f"{path} is no record ({error!r}); delete it, and run `baton results run {name}`"
        ) from error
