"""Requests of a trace as plans: the same times, lengths and shared blocks, or all of these scaled."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.errors import ConfigError
from loadtest.arrivals import Arrival
from loadtest.traces import MOONCAKE_BLOCK_TOKENS, read_azure, read_mooncake
from loadtest.workloads.plan import ConversationPlan, Piece, TurnPlan, piece_key, user_message
from loadtest.workloads.settings import WorkloadSettings

READERS = {".jsonl": read_mooncake, ".csv": read_azure}


@dataclass(frozen=True, slots=True)
class TracedRequests:
    """The part of a trace that is asked.

    Attributes:
        arrivals: by time, which counts from where the part begins.
        length_scale: what lengths of prompts, answers and shared blocks are multiplied by.
    """

    arrivals: Sequence[Arrival]
    length_scale: float

    def plans(self) -> Iterator[ConversationPlan]:
        """At their own times."""
        return self.plans_at(arrival.at_s for arrival in self.arrivals)

    def plans_at(self, times: Iterator[float | None]) -> Iterator[ConversationPlan]:
        """At other times. Ends with whichever of times and requests ends first."""
        for (number, arrival), at_s in zip(enumerate(self.arrivals), times, strict=False):
            turn = TurnPlan(
                messages=user_message(*self._pieces(number, arrival)),
                answer_tokens=_scaled(arrival.answer_tokens, self.length_scale),
            )
            yield ConversationPlan(at_s, (turn,))

    def _pieces(self, number: int, arrival: Arrival) -> Iterator[Piece]:
        """Its blocks, the last one as far as the prompt goes; where rounding leaves tokens, a rest of its own."""
        block_tokens = _scaled(MOONCAKE_BLOCK_TOKENS, self.length_scale)
        left = _scaled(arrival.prompt_tokens, self.length_scale)
        for block_id in arrival.block_ids:
            if left > 0:
                yield Piece(piece_key("block", block_id), min(left, block_tokens), is_shared=True)
            left -= block_tokens
        if left > 0:
            yield Piece(piece_key("request", number), left)


def read_trace(settings: WorkloadSettings, path: Path) -> TracedRequests:
    """The part of a trace that settings ask for.

    Raises:
        ConfigError: it is of no known kind, cannot be read, or has no request in that part; says why.
    """
    if path.suffix not in READERS:
        raise ConfigError(f"--trace is {path}; it must be Mooncake's .jsonl or Azure's .csv")
    everything = READERS[path.suffix](path)
    begin_s = settings.trace_offset_s or 0.0
    end_s = float("inf") if settings.trace_duration_s is None else begin_s + settings.trace_duration_s
    time_scale = settings.time_scale or 1.0
    part = [
        Arrival((one.at_s - begin_s) * time_scale, one.prompt_tokens, one.answer_tokens, one.block_ids)
        for one in everything
        if begin_s <= one.at_s < end_s
    ]
    if not part:
        last_s = everything[-1].at_s if everything else 0.0
        raise ConfigError(
            f"{path} has no request from {begin_s:g} to {end_s:g} s; its last of {len(everything)} comes at "
            f"{last_s:g} s; change --trace-offset-s or --trace-duration-s"
        )
    return TracedRequests(part, settings.length_scale or 1.0)


def _scaled(num_tokens: int, scale: float) -> int:
    return max(1, round(num_tokens * scale))
