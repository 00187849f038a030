"""What other routers have a worker do: the part of its load that this router has not assigned."""

from dataclasses import dataclass

from core.events import WorkerLoad


@dataclass(frozen=True, slots=True)
class OthersWork:
    """As of a worker's last report. What this router assigns after that comes on top of it.

    Attributes:
        prompt_tokens: to compute.
        sequences: that it generates or is to generate.
        context_tokens: of those that it generates.
    """

    prompt_tokens: int = 0
    sequences: int = 0
    context_tokens: int = 0

    @classmethod
    def of(
        cls, load: WorkerLoad, assigned_prompt_tokens: int, assigned_sequences: int, assigned_context_tokens: int
    ) -> "OthersWork":
        """What is left of a load when a router has taken off its own."""
        return cls(
            prompt_tokens=max(0, load.pending_prompt_tokens - assigned_prompt_tokens),
            sequences=max(0, load.running_sequences + load.incoming_handoffs - assigned_sequences),
            context_tokens=max(0, load.running_context_tokens - assigned_context_tokens),
        )
