"""When the requests of an open loop are sent. Not what they ask: that is drawn by itself, the same at any rate."""

import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

from core.errors import ConfigError

KINDS = "poisson, gamma:CV (1 is Poisson, 2 comes in clusters; 0.01 to 100), constant, or burst:N (N at once)"
CV_BOUNDS = (0.01, 100.0)  # all but constant; one request in ten thousand comes after a gap


@dataclass(frozen=True, slots=True)
class ArrivalProcess:
    """How requests follow each other.

    Attributes:
        kind: `poisson`, `gamma`, `constant` or `burst`.
        parameter: of gamma the coefficient of variation of gaps, in `CV_BOUNDS`; of burst how many come at once.
    """

    kind: str
    parameter: float = 1.0

    def times(self, rate: float, seed: int) -> Iterator[float]:
        """Seconds since the start at which requests come, rising, without end; the same for the same seed.

        The first of `poisson` and `gamma` comes after a gap, of the others at once.

        Args:
            rate: requests per second in the long run; positive.
            seed: of the gaps.
        """
        random_numbers = random.Random(f"arrivals {seed}")  # noqa: S311 - a load, no secret
        match self.kind:
            case "poisson":
                return itertools.accumulate(random_numbers.expovariate(rate) for _ in itertools.count())
            case "gamma":
                shape = self.parameter**-2
                scale = 1 / (rate * shape)
                return itertools.accumulate(random_numbers.gammavariate(shape, scale) for _ in itertools.count())
        at_once = int(self.parameter)
        return (number // at_once * at_once / rate for number in itertools.count())


def parse_arrivals(text: str) -> ArrivalProcess:
    """What `--arrivals` says: `poisson`, `gamma:CV`, `constant` or `burst:N`.

    Raises:
        ConfigError: it says something else.
    """
    kind, _, parameter = text.partition(":")
    if text in {"poisson", "constant"}:
        return ArrivalProcess(kind)
    try:
        number = float(parameter)
    except ValueError:
        number = math.nan
    is_known = (kind == "gamma" and CV_BOUNDS[0] <= number <= CV_BOUNDS[1]) or (
        kind == "burst" and number >= 1 and number % 1 == 0
    )
    if not is_known:
        raise ConfigError(f"--arrivals is {text!r}; take one of {KINDS}")
    return ArrivalProcess(kind, number)
