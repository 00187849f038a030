"""Published traces of requests, as loads. The files are not part of Baton."""

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from core.errors import ConfigError
from loadtest.arrivals import Arrival

MILLISECOND = 1e-3
MOONCAKE_BLOCK_TOKENS = 512  # that an id stands for
AZURE_COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")


def read_mooncake(path: Path) -> list[Arrival]:
    """Requests of a trace in Mooncake's format (Qin et al., FAST '25): a JSON object per line.

    `hash_ids` name blocks of 512 tokens of the prompt; equal ids are equal beginnings.

    Raises:
        ConfigError: the file cannot be read, or a line is no such request; says which.
    """
    return sorted(
        (_mooncake_request(line, f"{path}, line {number}") for number, line in enumerate(_lines(path), start=1)),
        key=lambda arrival: arrival.at_s,
    )


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise ConfigError(f"the trace {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"the trace {path} is no text ({error.reason}); unpack it if it is compressed") from error


def _mooncake_request(line: str, where: str) -> Arrival:
    try:
        fields = json.loads(line)
        arrival = Arrival(
            at_s=float(fields["timestamp"]) * MILLISECOND,
            prompt_tokens=int(fields["input_length"]),
            answer_tokens=int(fields["output_length"]),
            block_ids=tuple(map(int, fields["hash_ids"])),
        )
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise ConfigError(
            f"{where} is no request of a Mooncake trace ({error!r}); it needs timestamp, input_length, output_length "
            "and hash_ids"
        ) from error
    return _checked(arrival, where)


def _checked(arrival: Arrival, where: str) -> Arrival:
    if not 0 <= arrival.at_s < math.inf or arrival.prompt_tokens < 1 or arrival.answer_tokens < 1:
        raise ConfigError(f"{where} has a time below 0 or without an end, or no tokens of prompt or answer")
    return arrival


def read_azure(path: Path) -> list[Arrival]:
    """Requests of a trace in Azure's format: a table of times, prompt and answer lengths.

    That of the Azure Public Dataset's LLM inference traces of 2023 and 2024. Times count from the first; nothing is
    known of what prompts share.

    Raises:
        ConfigError: the file cannot be read, or a line is no such request; says which.
    """
    rows = csv.DictReader(_lines(path))
    missing = [column for column in AZURE_COLUMNS if column not in (rows.fieldnames or ())]
    if missing:
        raise ConfigError(f"{path} is no Azure trace: its first line lacks {', '.join(missing)}")
    timed = [_azure_request(row, f"{path}, line {number}") for number, row in enumerate(rows, start=2)]
    first = min((at for at, _ in timed), default=datetime.min.replace(tzinfo=UTC))
    return sorted(
        (Arrival((at - first).total_seconds(), *lengths) for at, lengths in timed),
        key=lambda arrival: arrival.at_s,
    )


def _azure_request(row: dict[str, str], where: str) -> tuple[datetime, tuple[int, int]]:
    try:
        time, prompt_tokens, answer_tokens = (row[column] for column in AZURE_COLUMNS)
        at = datetime.fromisoformat(time)
        lengths = int(prompt_tokens), int(answer_tokens)
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"{where} is no request of an Azure trace ({error}); it needs a time and two lengths"
        ) from error
    _checked(Arrival(0.0, *lengths), where)
    return at.replace(tzinfo=at.tzinfo or UTC), lengths


def faster(arrivals: Sequence[Arrival], factor: float) -> list[Arrival]:
    """The same requests in less time."""
    return [replace(arrival, at_s=arrival.at_s / factor) for arrival in arrivals]
