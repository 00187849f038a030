"""What rank 0 tells the other ranks to do with it. Sent as they are, so they hold plain values only."""

from dataclasses import dataclass
from typing import Protocol, TypeVar

from torch import Tensor

from engine.executor import Executor, MoveOutcome
from engine.parallel.balancer import Slots
from engine.plan import StepPlan, StepResult

Result_co = TypeVar("Result_co", covariant=True)


class Command(Protocol[Result_co]):
    """One command; `Executor` says what each does."""

    def run(self, executor: Executor) -> Result_co:
        """Does this rank's part."""
        ...


@dataclass(frozen=True, slots=True)
class ComputeLogits:
    """Compute a plan of at least one slice, and return its logits."""

    plan: StepPlan

    def run(self, executor: Executor) -> Tensor:
        """See `Executor.logits`."""
        return executor.logits(self.plan)


@dataclass(frozen=True, slots=True)
class DrawTokens:
    """Compute a plan of at least one slice, and draw its tokens."""

    plan: StepPlan

    def run(self, executor: Executor) -> StepResult:
        """See `Executor.draw`."""
        return executor.draw(self.plan)


@dataclass(frozen=True, slots=True)
class ReadExpertLoad:
    """Add up where tokens went."""

    def run(self, executor: Executor) -> dict[int, list[int]]:
        """See `Executor.expert_load`."""
        return executor.expert_load()


@dataclass(frozen=True, slots=True)
class MoveExperts:
    """Give a layer's slots other experts."""

    layer: int
    slots: Slots

    def run(self, executor: Executor) -> MoveOutcome:
        """See `Executor.move_experts`."""
        return executor.move_experts(self.layer, self.slots)


@dataclass(frozen=True, slots=True)
class Stop:
    """Follow no longer."""

    def run(self, executor: Executor) -> None:
        """Nothing to do but to have heard it."""
