"""How a load is sent and judged, as flags say it. Not what is asked: that is `loadtest.workloads.settings`'s."""

import math
from dataclasses import dataclass
from typing import Any

from core.errors import ConfigError
from core.flags import flag, flag_name, given_flags
from loadtest.load.chat_body import MAX_TOKENS_FIELDS, parse_extra_body
from loadtest.load.summary import Limits

DEFAULT_DURATION_S = 60.0
# A request that waits so long for its client is late by a fifth of the shortest TTFT that people notice (100 ms).
DEFAULT_MAX_LAG_MS = 20.0
MAX_TEMPERATURE = 2.0


@dataclass(frozen=True, slots=True)
class LoadSettings:
    """How requests are sent, how many, and what counts as good.

    Raises:
        ConfigError: on construction, naming the flag and its value.
    """

    rate: str | None = flag(None, "Requests per second, whatever the server does; 1,2,4 is a run of each.")
    concurrency: str | None = flag(None, "Conversations at once, the next when one ends; 1,4,16 is a run of each.")
    duration_s: float | None = flag(
        None, "Seconds of a run in which requests are sent. Default: 60, or as --requests or a file last."
    )
    requests: int | None = flag(None, "Requests of a run, at most.")
    warmup_s: float = flag(0.0, "What is due in these first seconds of a run is not measured.")
    warmup_requests: int = flag(0, "So many first requests of a run are not measured.")
    slo_ttft_ms: float | None = flag(None, "Time to the first token that goodput asks for. Default: any.")
    slo_tpot_ms: float | None = flag(None, "Mean time per token after it that goodput asks for. Default: any.")
    max_lag_ms: float = flag(DEFAULT_MAX_LAG_MS, "A run that sent its requests later than this at p99 is not valid.")
    max_open: int = flag(4096, "Connections at once; a run that needs more is not valid.")
    timeout_s: float = flag(600.0, "A request without a complete answer after this has failed.")
    model: str | None = flag(None, "Model to ask. Default: the first that the server lists.")
    max_tokens_field: str = flag("max_tokens", "What the server calls an answer's length, or max_completion_tokens.")
    ignore_eos: bool = flag(
        default=False, description="Ask for answers of exactly the planned length: Baton, vLLM and SGLang know that."
    )
    temperature: float | None = flag(None, "Of sampling; 0 is greedy. Default: the server's.")
    sampling_seed: int | None = flag(None, "Seed of sampling that the server is asked for. Default: none.")
    extra_body: str = flag("{}", "JSON object with further fields of every request, such as '{\"top_k\": 1}'.")

    def __post_init__(self) -> None:
        if self.rate is not None and self.concurrency is not None:
            raise ConfigError("--rate and --concurrency are two ways to send requests; give one of them")
        for name in ("duration_s", "requests", "slo_ttft_ms", "slo_tpot_ms", "max_lag_ms", "max_open", "timeout_s"):
            self._check(name, is_zero_good=False)
        for name in ("warmup_s", "warmup_requests", "temperature"):
            self._check(name, is_zero_good=True)
        if self.temperature is not None and self.temperature > MAX_TEMPERATURE:
            raise ConfigError(f"--temperature is {self.temperature}; it must be between 0 and 2")
        if self.max_tokens_field not in MAX_TOKENS_FIELDS:
            raise ConfigError(
                f"--max-tokens-field is {self.max_tokens_field!r}; it must be one of {', '.join(MAX_TOKENS_FIELDS)}"
            )
        for make in (self.rates, self.body_fields):
            make()
        if (most := max(self.concurrencies(), default=0)) > self.max_open:
            raise ConfigError(f"--concurrency is {most}, more than --max-open {self.max_open}; raise that")

    def _check(self, name: str, *, is_zero_good: bool) -> None:
        value = getattr(self, name)
        if value is not None and not (0 < value < math.inf or (is_zero_good and value == 0)):
            needed = "0 or more" if is_zero_good else "a positive number"
            raise ConfigError(f"{flag_name(name)} is {value}; it must be {needed}")

    def rates(self) -> tuple[float, ...]:
        """Of each run of an open loop, in order; none for another loop."""
        return _numbers(self.rate, "--rate")

    def concurrencies(self) -> tuple[int, ...]:
        """Of each run of a closed loop, in order; none for an open one."""
        numbers = _numbers(self.concurrency, "--concurrency")
        if not all(number.is_integer() for number in numbers):
            raise ConfigError(f"--concurrency is {self.concurrency!r}; it must be whole numbers, such as 1,4,16")
        return tuple(map(int, numbers))

    def body_fields(self) -> dict[str, Any]:
        """What every request has beside its messages and its answer's length."""
        asked = {
            "temperature": self.temperature,
            "seed": self.sampling_seed,
            "ignore_eos": self.ignore_eos or None,
        }
        fields = {name: value for name, value in asked.items() if value is not None}
        extra = parse_extra_body(self.extra_body)
        if twice := fields.keys() & extra.keys():
            raise ConfigError(f"--extra-body sets {', '.join(sorted(twice))}, for which a flag is given, too")
        return fields | extra

    def limits(self) -> Limits:
        """What counts as good."""
        return Limits(self.slo_ttft_ms, self.slo_tpot_ms)

    def given(self) -> dict[str, object]:
        """What differs from the defaults, by flag, for people to read."""
        return given_flags(self)


def _numbers(text: str | None, name: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(",")) if text is not None else ()
    except ValueError:
        numbers = (0.0,)
    if not all(0 < number < math.inf for number in numbers):
        raise ConfigError(f"{name} is {text!r}; it must be positive numbers separated by commas, such as 1,2,4")
    return numbers
