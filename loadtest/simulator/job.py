"""One request on its way through the simulated fleet."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadtest.arrivals import Arrival

if TYPE_CHECKING:
    from loadtest.simulator.worker import SimWorker


@dataclass(slots=True, eq=False)
class Job:
    """A request and how far it is.

    Attributes:
        number: in order of arrival, from 0.
        arrival: what was asked for.
        prefill: who computes the prompt, or has; None while it waits for a place.
        decode: who is to generate, or does; None while that is not decided.
        prompt_tokens: that this attempt computes or finds in a cache; with what had been generated when it was
            placed again.
        num_computed: of those, found or computed.
        num_generated: tokens of the answer, as of when the job last joined or left a batch.
        first_token_s: when the first token of the answer came.
        finished_s: when the last one came.
        is_accepted: whether the router has taken it; None until that is decided.
        is_prompt_done: whether the prompt of this attempt is computed.
        is_reserved: whether `decode` has a place and room for it.
        is_handed_over: whether `decode` has its KV, and nobody else need have it.
        num_sent: prompt tokens whose KV is on its way to `decode`, or there.
        arrives_s: when the last of these arrive.
        attempt: how often it was given up; what was meant for an earlier attempt means nothing.
        num_failures: attempts in a row that failed by somebody's fault, without a token.
        num_places: how often it was placed.
        num_migrations: how often it moved while it was generated.
    """

    number: int
    arrival: Arrival
    prefill: "SimWorker | None" = None
    decode: "SimWorker | None" = None
    prompt_tokens: int = 0
    num_computed: int = 0
    num_generated: int = 0
    first_token_s: float | None = None
    finished_s: float | None = None
    is_accepted: bool | None = None
    is_prompt_done: bool = False
    is_reserved: bool = False
    is_handed_over: bool = False
    num_sent: int = 0
    arrives_s: float = 0.0
    attempt: int = 0
    num_failures: int = 0
    num_places: int = 0
    num_migrations: int = 0

    def __post_init__(self) -> None:
        self.prompt_tokens = self.arrival.prompt_tokens

    @property
    def num_remaining(self) -> int:
        """Prompt tokens still to be computed."""
        return self.prompt_tokens - self.num_computed

    @property
    def context_tokens(self) -> int:
        """Prompt and answer so far, as of when the job last joined or left a batch."""
        return self.arrival.prompt_tokens + self.num_generated

    def restart(self) -> None:
        """Everything generated so far becomes part of the prompt of the next attempt."""
        self.prefill = self.decode = None
        self.prompt_tokens = self.context_tokens
        self.num_computed = self.num_sent = 0
        self.is_prompt_done = self.is_reserved = self.is_handed_over = False
        self.attempt += 1

    # --- what the client saw

    @property
    def ttft_s(self) -> float | None:
        """Seconds to the first token; None when it never came."""
        return None if self.first_token_s is None else self.first_token_s - self.arrival.at_s

    @property
    def tpot_s(self) -> float | None:
        """Mean seconds per token after the first, 0 where there is none; None when the answer did not end."""
        if self.first_token_s is None or self.finished_s is None:
            return None
        return (self.finished_s - self.first_token_s) / max(1, self.arrival.answer_tokens - 1)

    def is_inside(self, ttft_limit_s: float, tpot_limit_s: float) -> bool:
        """Whether it ended inside both limits."""
        ttft_s, tpot_s = self.ttft_s, self.tpot_s
        return ttft_s is not None and tpot_s is not None and ttft_s <= ttft_limit_s and tpot_s <= tpot_limit_s
