"""Numbers drawn at random: how long prompts and answers are, how long people think. Not what is drawn for whom.

One grammar for all of them:

    512                          always 512
    256:1024                     uniform between both, these included
    normal:512:64                mean and standard deviation
    lognormal:512:300            mean and standard deviation of the numbers themselves, not of their logarithms
    exponential:30               mean
    lognormal:512:300:16:4096    the last two of any named kind: what lies outside is drawn as the nearer bound
"""

import math
import random
from dataclasses import dataclass
from typing import NoReturn

from core.errors import ConfigError

EXAMPLES = "512, 256:1024, normal:512:64, lognormal:512:300, exponential:30 or lognormal:512:300:16:4096"
MAX_NUMBER = 1e7  # more tokens than any context has, more seconds than a load lasts
LEAST_MEAN = 1e-6  # so that ratios of mean and deviation stay finite
NUM_PARAMETERS = {"constant": 1, "uniform": 2, "normal": 2, "lognormal": 2, "exponential": 1}


@dataclass(frozen=True, slots=True)
class Draws:
    """A distribution.

    Attributes:
        kind: a key of `NUM_PARAMETERS`.
        parameters: as many as that says, none negative: the value; both bounds; mean and standard deviation; mean.
        low: nothing less is drawn.
        high: nothing more is drawn.
    """

    kind: str
    parameters: tuple[float, ...]
    low: float = 0.0
    high: float = math.inf

    def number(self, random_numbers: random.Random) -> float:
        """The next number."""
        return min(max(self._unbounded(random_numbers), self.low), self.high)

    def count(self, random_numbers: random.Random) -> int:
        """The next number as a whole one, at least one. Of uniform ones all between the bounds are equally likely."""
        if self.kind == "uniform":
            return max(1, random_numbers.randint(*(round(bound) for bound in self.parameters)))
        return max(1, round(self.number(random_numbers)))

    def _unbounded(self, random_numbers: random.Random) -> float:
        first, second = self.parameters[0], self.parameters[-1]
        match self.kind:
            case "uniform":
                return random_numbers.uniform(first, second)
            case "normal":
                return random_numbers.gauss(first, second)
            case "lognormal":
                variance = math.log1p((second / first) ** 2)
                return random_numbers.lognormvariate(math.log(first) - variance / 2, math.sqrt(variance))
            case "exponential":
                return random_numbers.expovariate(1 / first)
        return first


def parse_draws(text: str, flag: str, *, least: float = 0.0) -> Draws:
    """What a flag says in the grammar above.

    Args:
        text: the flag's value.
        flag: its name, for the error.
        least: that makes sense as a number, or as the lower bound of uniform ones.

    Raises:
        ConfigError: it is not in that grammar, or less makes no sense; names the flag.
    """
    kind, *rest = text.split(":")
    if kind not in {"normal", "lognormal", "exponential"}:
        kind, rest = ("uniform" if rest else "constant"), [kind, *rest]
    numbers = _numbers(rest, text, flag)
    num_parameters = NUM_PARAMETERS[kind]
    parameters, bounds = numbers[:num_parameters], numbers[num_parameters:]
    may_be_bounded = kind not in {"uniform", "constant"}
    if len(parameters) < num_parameters or len(bounds) not in ({0, 2} if may_be_bounded else {0}):
        _refuse(text, flag, "has the wrong number of parts")
    if kind == "uniform" and parameters[0] > parameters[1]:
        _refuse(text, flag, "has its bounds the wrong way round")
    if not may_be_bounded and parameters[0] < least:
        _refuse(text, flag, f"is less than {least:g}")
    if may_be_bounded and parameters[0] < LEAST_MEAN:
        _refuse(text, flag, f"has a mean of less than {LEAST_MEAN:g}")
    if bounds and bounds[0] > bounds[1]:
        _refuse(text, flag, "has its bounds the wrong way round")
    return Draws(kind, parameters, *bounds)


def _numbers(parts: list[str], text: str, flag: str) -> tuple[float, ...]:
    try:
        numbers = tuple(map(float, parts))
    except ValueError:
        _refuse(text, flag, "has a part that is no number")
    if not all(0 <= number <= MAX_NUMBER for number in numbers):
        _refuse(text, flag, f"has a number that is negative or above {MAX_NUMBER:.0f}")
    return numbers


def _refuse(text: str, flag: str, problem: str) -> NoReturn:
    raise ConfigError(f"{flag} is {text!r}, which {problem}; write it like {EXAMPLES}")
