"""What a worker's steps have executed since its role epoch began: a flip is verified by this, not by its label."""

from dataclasses import dataclass

from core.request import Role
from engine.plan import StepResult


@dataclass(slots=True)
class EpochWork:
    """Counts of one epoch.

    Attributes:
        number: of the epoch; 0 before the first.
        role: what the worker is for in it.
        ordered_s: when the order for it came, on the clock.
        num_steps: engine steps since it began.
        num_prompt_tokens: computed in them, whatever the role.
        num_decode_tokens: likewise.
        first_work_s: seconds from the order to the beginning of the first step with work of the role; 0 until it has
            ended.
    """

    number: int = 0
    role: Role = Role.MIXED
    ordered_s: float = 0.0
    num_steps: int = 0
    num_prompt_tokens: int = 0
    num_decode_tokens: int = 0
    first_work_s: float = 0.0

    def count(self, result: StepResult, started_s: float) -> None:
        """Takes in a step that has ended and had begun at `started_s` on the clock."""
        self.num_steps += 1
        self.num_prompt_tokens += result.num_prompt_tokens
        self.num_decode_tokens += result.num_decode_tokens
        is_work = (result.num_prompt_tokens > 0 and self.role.serves(Role.PREFILL)) or (
            result.num_decode_tokens > 0 and self.role.serves(Role.DECODE)
        )
        if is_work and not self.first_work_s:
            self.first_work_s = started_s - self.ordered_s
