"""What clients ask a router, and what came of it, whichever API they use. Sends nothing."""

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from core.errors import InternalError


@dataclass(frozen=True, slots=True)
class Load:
    """Clients that each ask one request after the other.

    Attributes:
        num_clients: at once.
        answer_tokens: of every answer.
        is_streamed: whether answers come as they are generated.
        window_s: seconds that count.
        ramp_s: seconds before them.
        has_fresh: whether every second request goes over a connection of its own, made before.
    """

    num_clients: int
    answer_tokens: int
    is_streamed: bool
    window_s: float
    ramp_s: float = 0.5
    has_fresh: bool = False


@dataclass(frozen=True, slots=True)
class Watched:
    """Whose CPU time is taken while a load is sent.

    Attributes:
        pids: of processes, by name.
        core: that the router runs on.
    """

    pids: Mapping[str, int]
    core: int


@dataclass(slots=True)
class Answer:
    """One answer as it came. Times are of the client's monotonic clock, in seconds.

    Attributes:
        sent_s: when its request was handed to the kernel.
        is_fresh: whether over a connection of its own.
        first_s: when its first token came; 0 before.
        ended_s: when it was complete; 0 before.
        parts: what came, piece by piece; of which kind is the API's.
    """

    sent_s: float
    is_fresh: bool = False
    first_s: float = 0.0
    ended_s: float = 0.0
    parts: list[Any] = field(default_factory=list)


class Connection(Protocol):
    """Asks one request after the other."""

    def ask(self, request: Any, answer: Answer) -> Awaitable[None]:  # noqa: ANN401 - the API's own kind
        """Fills in an answer; done when it is complete.

        Raises:
            InternalError: it was refused, or failed.
        """
        ...

    async def close(self) -> None:
        """Ends what is under way."""
        ...


class Api(Protocol):
    """How requests look and answers are read. Two implementations: HTTP and gRPC."""

    def request(self, prompt: str, load: Load) -> Any:  # noqa: ANN401 - its own kind
        """A request, ready to be sent."""
        ...

    async def connect(self) -> Connection:
        """Another connection."""
        ...

    def words(self, parts: Sequence[Any]) -> list[str]:
        """What the leading parts of an answer say.

        Raises:
            InternalError: they are complete, and say another number of tokens than they have.
        """
        ...

    async def close(self) -> None:
        """Ends what all connections share."""
        ...


@dataclass(frozen=True, slots=True)
class LoadFigures:
    """What a load brought in its window.

    Attributes:
        window_s: seconds that it lasted.
        num_answers: that ended in it.
        num_tokens: that came in it.
        ttft_s: from request to first token, of all answers of the run in the order of their requests.
        fresh_ttft_s: of these, over a connection of its own; they are not in `ttft_s`.
        duration_s: from request to end, likewise of all.
        cpu_s: seconds of a core that each process used in it, by name.
        idle_s: seconds in it that the router's core had nothing to do.
    """

    window_s: float
    num_answers: int
    num_tokens: int
    ttft_s: list[float]
    fresh_ttft_s: list[float]
    duration_s: list[float]
    cpu_s: dict[str, float]
    idle_s: float


def check_words(words: Sequence[str], expected: Sequence[str]) -> None:
    """A rate of wrong or lost tokens would be worth nothing.

    Raises:
        InternalError: the words of an answer are not the expected ones.
    """
    if list(words) == list(expected):
        return
    pairs = zip(words, expected, strict=False)
    at = next((n for n, (got, right) in enumerate(pairs) if got != right), min(len(words), len(expected)))
    raise InternalError(
        f"an answer of {len(expected)} tokens is wrong from token {at} on: {' '.join(words[at : at + 3])!r} instead "
        f"of {' '.join(expected[at : at + 3])!r}; {len(words)} tokens came"
    )
