"""Which requests make up a load, as flags say it. Not how many and how fast: that is the load's own."""

import math
from dataclasses import dataclass
from pathlib import Path

from core.errors import ConfigError
from core.flags import flag, flag_name, given_flags
from loadtest.workloads.arrival_times import ArrivalProcess, parse_arrivals
from loadtest.workloads.draws import Draws, parse_draws

DEFAULT_PROMPT = "512"
DEFAULT_ANSWER = "128"
DEFAULT_ZIPF = 1.0
ONLY_SYNTHETIC = (
    "prompt_tokens", "answer_tokens", "prefixes", "prefix_tokens", "prefix_zipf", "turns", "turn_tokens",
)  # fmt: skip
ONLY_TRACE = ("time_scale", "trace_offset_s", "trace_duration_s", "length_scale")


@dataclass(frozen=True, slots=True)
class WorkloadSettings:
    """Where the requests of a load come from. `loadtest.workloads.draws` has the grammar of lengths.

    Raises:
        ConfigError: on construction, naming the flag and its value.
    """

    prompt_tokens: str | None = flag(
        None, "Tokens of a prompt: 512, 256:1024, normal:512:64, lognormal:512:300[:LOW:HIGH]. Default: 512."
    )
    answer_tokens: str | None = flag(None, "Tokens of an answer, likewise. Default: 128; a data set's own.")
    prefixes: int | None = flag(None, "Number of beginnings that prompts share; each prompt has one of them.")
    prefix_tokens: int | None = flag(None, "Tokens of each of them, beside --prompt-tokens. Needs --prefixes.")
    prefix_zipf: float | None = flag(
        None, "The k-th most frequent of them is as frequent as 1 / k to this power; 0 for all alike. Default: 1."
    )
    turns: str | None = flag(None, "Requests of a conversation, each with what was said before it. Default: 1.")
    turn_tokens: str | None = flag(None, "Tokens that later turns add. Default: as --prompt-tokens.")
    think_s: str | None = flag(None, "Seconds between an answer and the next turn, such as 2 or exponential:2.")
    trace: Path | None = flag(None, "Requests of a trace: Mooncake's .jsonl or Azure's .csv.")
    time_scale: float | None = flag(None, "Times of the trace are multiplied by this; 0.5 is twice as fast.")
    length_scale: float | None = flag(None, "Lengths of the trace are multiplied by this, shared blocks too.")
    trace_offset_s: float | None = flag(None, "Begin here in the trace, in its own seconds.")
    trace_duration_s: float | None = flag(None, "Take so much of the trace, in its own seconds. Default: the rest.")
    dataset: Path | None = flag(
        None, "Conversations in ShareGPT's form, a .json file: prompts as they were recorded."
    )
    multi_turn: bool = flag(
        default=False, description="Ask all turns of the data set's conversations, not the first."
    )
    tokenizer: Path | None = flag(
        None,
        "Checkpoint folder of the model that is asked, for prompts of exact lengths. Default: a word is a token.",
    )
    arrivals: str | None = flag(
        None, "How requests follow each other at a rate: poisson, gamma:CV, constant, burst:N. Default: poisson."
    )
    seed: int = flag(0, "Of all that is drawn, and of the words; the same seed asks the same.")

    def __post_init__(self) -> None:
        if self.trace is not None and self.dataset is not None:
            raise ConfigError("--trace and --dataset are both sources of requests; give one of them")
        for name in ONLY_SYNTHETIC:
            source = self.trace or self.dataset
            recorded_answers = name == "answer_tokens" and self.dataset is not None
            if source is not None and not recorded_answers:
                self._forbid(name, f"the lengths and turns of {source} are its own; leave it out")
        for name in ONLY_TRACE:
            if self.trace is None:
                self._forbid(name, "it is for a --trace; leave it out or give one")
        if self.multi_turn and self.dataset is None:
            raise ConfigError("--multi-turn is for a --dataset; --turns N makes conversations without one")
        if self.turns is None:
            self._forbid("turn_tokens", "there are no later turns without --turns; give both")
        if self.turns is None and not self.multi_turn:
            self._forbid("think_s", "there are no later turns without --turns or --multi-turn; give one of them")
        self._check_numbers()
        for make in (self.prompt, self.answer, self.later_turns, self.num_turns, self.thinking, self.process):
            make()

    def _forbid(self, name: str, reason: str) -> None:
        if getattr(self, name) is not None:
            raise ConfigError(f"{flag_name(name)} is {getattr(self, name)}, but {reason}")

    def _check_numbers(self) -> None:
        if (self.prefixes is None) != (self.prefix_tokens is None):
            raise ConfigError("--prefixes and --prefix-tokens need each other: how many beginnings, and how long")
        if self.prefix_zipf is not None and self.prefixes is None:
            raise ConfigError(f"--prefix-zipf is {self.prefix_zipf}, but there are no --prefixes; give both")
        for name in ("prefixes", "prefix_tokens", "time_scale", "length_scale", "trace_duration_s"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"{flag_name(name)} is {value}; it must be a positive number")
        for name in ("prefix_zipf", "trace_offset_s"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ConfigError(f"{flag_name(name)} is {value}; it must be 0 or more")

    def prompt(self) -> Draws:
        """Lengths of first turns without what they share, in tokens."""
        return _counts(self.prompt_tokens, DEFAULT_PROMPT, "--prompt-tokens")

    def later_turns(self) -> Draws:
        """What later turns add, in tokens."""
        return _counts(
            self.turn_tokens, DEFAULT_PROMPT if self.prompt_tokens is None else self.prompt_tokens, "--turn-tokens"
        )

    def answer(self) -> Draws:
        """Lengths of answers, in tokens."""
        return _counts(self.answer_tokens, DEFAULT_ANSWER, "--answer-tokens")

    def num_turns(self) -> Draws:
        """Turns of a conversation."""
        return _counts(self.turns, "1", "--turns")

    def thinking(self) -> Draws:
        """Seconds between an answer and the next turn."""
        return parse_draws("0" if self.think_s is None else self.think_s, "--think-s")

    def process(self) -> ArrivalProcess:
        """How requests follow each other at a rate."""
        return parse_arrivals("poisson" if self.arrivals is None else self.arrivals)

    def given(self) -> dict[str, object]:
        """What differs from the defaults, by flag, for people to read."""
        return given_flags(self)


def _counts(value: str | None, default: str, name: str) -> Draws:
    return parse_draws(default if value is None else value, name, least=1)
