"""How fast synthetic workers generate."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a decode worker generates.

    Attributes:
        step_s: seconds from one step to the next; 0 for the next step as soon as a report has been sent.
        step_tokens: tokens of each sequence in a step.
    """

    step_s: float = 0.0
    step_tokens: int = 1
