"""How fast synthetic workers are."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a prompt takes at a prefill worker, and a step at a decode worker.

    Attributes:
        step_s: seconds from one step to the next; 0 for the next step as soon as a report has been sent.
        step_tokens: tokens of each sequence in a step.
        prompt_s: seconds until prompts are computed that come together, whatever their lengths; 0 for at once.
    """

    step_s: float = 0.0
    step_tokens: int = 1
    prompt_s: float = 0.0
