"""Published traces of requests, as loads. The files are not part of Baton."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from core.errors import ConfigError
from loadtest.arrivals import Arrival

MILLISECOND = 1e-3


def read_mooncake(path: Path) -> list[Arrival]:
    """Requests of a trace in Mooncake's format (Qin et al., FAST '25): a JSON object per line.

    `hash_ids` name blocks of 512 tokens of the prompt; equal ids are equal beginnings.

    Raises:
        ConfigError: the file cannot be read, or a line is no such request; says which.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigError(f"the trace {path} cannot be read: {error.strerror}") from error
    return sorted(
        (_mooncake_request(line, f"{path}, line {number}") for number, line in enumerate(lines, start=1)),
        key=lambda arrival: arrival.at_s,
    )


def _mooncake_request(line: str, where: str) -> Arrival:
    try:
        fields = json.loads(line)
        arrival = Arrival(
            at_s=float(fields["timestamp"]) * MILLISECOND,
            prompt_tokens=int(fields["input_length"]),
            answer_tokens=int(fields["output_length"]),
            block_ids=tuple(map(int, fields["hash_ids"])),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{where} is no request of a Mooncake trace ({error!r}); it needs timestamp, input_length, output_length "
            "and hash_ids"
        ) from error
    if arrival.at_s < 0 or arrival.prompt_tokens < 1 or arrival.answer_tokens < 1:
        raise ConfigError(f"{where} has a time below 0, or no tokens of prompt or answer")
    return arrival


def faster(arrivals: Sequence[Arrival], factor: float) -> list[Arrival]:
    """The same requests in less time."""
    return [replace(arrival, at_s=arrival.at_s / factor) for arrival in arrivals]
