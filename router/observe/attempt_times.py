"""One placement of a request, and when what happened to it. On the router's clock, but for what workers measured."""

from dataclasses import dataclass

from core.events import TokenTiming
from core.ids import WorkerId
from core.request import Assignment
from core.token_runs import TokenRun


@dataclass(slots=True)
class AttemptTimes:
    """One placement.

    Attributes:
        handoff_id: names it.
        first_position: tokens that the answer had before.
        prefill: who was to compute the prompt.
        decode: who was to generate.
        assigned_s: when both were told.
        prefilled: what came before its first token, at the prefill worker; None until that has come.
        decoded: likewise before the first token of the decode worker.
        returned_s: when it came back unfinished; None if it has not.
        code: why.
    """

    handoff_id: str
    first_position: int
    prefill: WorkerId
    decode: WorkerId
    assigned_s: float
    prefilled: TokenTiming | None = None
    decoded: TokenTiming | None = None
    returned_s: float | None = None
    code: str = ""

    @classmethod
    def of(cls, assignment: Assignment, now_s: float) -> "AttemptTimes":
        """One that begins now."""
        prefill, decode = assignment.prefill.worker, assignment.decode.worker
        return cls(assignment.handoff_id, assignment.first_position, prefill, decode, now_s)

    def take(self, run: TokenRun) -> None:
        """Takes in tokens that say what came before them; the second time they say so changes nothing."""
        if run.position == self.first_position:
            self.prefilled = self.prefilled or run.timing
        else:
            self.decoded = self.decoded or run.timing
