"""Where the time of one answer has gone. `docs/metrics.md` defines the phases; this is where they are computed."""

from dataclasses import dataclass

from core.events import TokenTiming


@dataclass(frozen=True, slots=True)
class Phases:
    """Seconds of each phase.

        arrived                                           first token         second token                last token
        [ queue )[ retry )[ queue )[ prefill )[ and wire  )[ handoff )[ first step )[ decode               )
        [ ttft                                            )

    Attributes:
        queue_s: until a worker began with the prompt: for a worker to be chosen, and then for its turn there.
        retry_s: with workers that gave the request back or died before its first token.
        prefill_s: computing the prompt, up to its first token; other work of the same steps included.
        wire_s: the rest of the time to the first token: the ways to the worker and back.
        handoff_s: from the first token until the decode worker had taken the sequence over; None when the answer has
            one token only, or was resumed in between.
        first_step_s: from then until the decode worker had drawn its first token; None likewise.
        decode_s: from the second token, or from the first where those two are None, to the last so far.
    """

    queue_s: float
    retry_s: float
    prefill_s: float
    wire_s: float
    handoff_s: float | None
    first_step_s: float | None
    decode_s: float

    @classmethod
    def of(
        cls,
        *,
        arrived_s: float,
        first_assigned_s: float,
        assigned_s: float,
        first_s: float,
        second_s: float | None,
        last_s: float,
        prefilled: TokenTiming,
        decoded: TokenTiming | None,
    ) -> "Phases":
        """From the router's times and two measurements of workers, whose clocks need not agree with the router's.

        Args:
            arrived_s: when the request was accepted.
            first_assigned_s: when workers were first given it.
            assigned_s: likewise those that brought the first token.
            first_s: when that came.
            second_s: when the second came.
            last_s: when the last so far came.
            prefilled: what came before the first token.
            decoded: what came before the second, when it is of the same attempt.
        """
        at_worker_s = first_s - assigned_s
        prefill_s = min(prefilled.compute_s, at_worker_s)
        queue_s = min(prefilled.queue_s, at_worker_s - prefill_s)
        handoff_s = first_step_s = None
        if second_s is not None and decoded is not None:
            first_step_s = min(decoded.compute_s, second_s - first_s)
            handoff_s = second_s - first_s - first_step_s
        return cls(
            queue_s=first_assigned_s - arrived_s + queue_s,
            retry_s=assigned_s - first_assigned_s,
            prefill_s=prefill_s,
            wire_s=at_worker_s - prefill_s - queue_s,
            handoff_s=handoff_s,
            first_step_s=first_step_s,
            decode_s=last_s - (first_s if second_s is None or decoded is None else second_s),
        )

    @property
    def ttft_s(self) -> float:
        """Seconds to the first token: the sum of the first four."""
        return self.queue_s + self.retry_s + self.prefill_s + self.wire_s

    def by_name(self) -> dict[str, float]:
        """Seconds of those that there were, in order of time but for the queue."""
        named = {
            "queue": self.queue_s,
            "retry": self.retry_s,
            "prefill": self.prefill_s,
            "wire": self.wire_s,
            "handoff": self.handoff_s,
            "first_step": self.first_step_s,
            "decode": self.decode_s,
        }
        return {name: seconds for name, seconds in named.items() if seconds is not None}

    def server_timing(self) -> str:
        """As in the Server-Timing header (W3C): milliseconds, and the sum of the first four last, as `ttft`."""
        named = {**self.by_name(), "ttft": self.ttft_s}
        return ", ".join(f"{name};dur={seconds * 1000:.3f}" for name, seconds in named.items())
