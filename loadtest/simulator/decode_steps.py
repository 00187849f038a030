"""Many decode steps of an unchanging batch in one go, in closed form.

Each step every sequence attends to one token more than in the step before, so with n sequences, t context tokens at
first, d seconds by the curve and a seconds per context token, k steps take

    k * d  +  a * (k * t  +  n * k * (k - 1) / 2)
"""

import math
from dataclasses import dataclass

from core.cost import CostModel


@dataclass(frozen=True, slots=True)
class DecodeSteps:
    """Steps of one batch.

    Attributes:
        cost: of the worker.
        num_sequences: at least one.
        context_tokens: that the first step attends to.
    """

    cost: CostModel
    num_sequences: int
    context_tokens: int

    def seconds(self, num_steps: int) -> float:
        """Until so many steps are done."""
        attended = num_steps * self.context_tokens + self.num_sequences * num_steps * (num_steps - 1) / 2
        return num_steps * self.cost.decode.at(self.num_sequences) + self.cost.decode_context_token_s * attended

    def num_done(self, elapsed_s: float) -> int:
        """Steps that are done after so many seconds."""
        growth_s = self.cost.decode_context_token_s * self.num_sequences / 2
        first_s = self.seconds(1) - growth_s
        root = math.sqrt(first_s * first_s + 4 * growth_s * elapsed_s)
        num_steps = math.floor(2 * elapsed_s / (first_s + root)) if first_s + root > 0 else 0
        while self.seconds(num_steps + 1) <= elapsed_s:  # the root is off by a rounding at times
            num_steps += 1
        while num_steps and self.seconds(num_steps) > elapsed_s:
            num_steps -= 1
        return num_steps
