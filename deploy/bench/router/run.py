"""One load on a router, with what it brought and what it cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from deploy.bench.router.asking import Load, LoadFigures
from deploy.bench.router.pace import Pace

BUSY = 0.9  # of a core: whoever is this busy limits a rate


@dataclass(frozen=True, slots=True)
class Run:
    """One load on one pace of the workers, and what it cost.

    Attributes:
        name: of what was measured.
        api: `http` or `grpc`.
        load: what was sent.
        pace: of the workers.
        figures: what came of it.
        inside_s: seconds that each prompt spent in the workers, in the order in which they came.
    """

    name: str
    api: str
    load: Load
    pace: Pace
    figures: LoadFigures
    inside_s: list[float]

    @property
    def offered_tokens_per_s(self) -> float | None:
        """What paced workers generate while all clients have an answer under way; None when they have no pace."""
        if not self.pace.step_s:
            return None
        return self.load.num_clients * self.pace.step_tokens / self.pace.step_s

    @property
    def answers_per_s(self) -> float:
        """That ended."""
        return self.figures.num_answers / self.figures.window_s

    @property
    def tokens_per_s(self) -> float:
        """That came."""
        return self.figures.num_tokens / self.figures.window_s

    def core_share(self, *names: str) -> float:
        """The part of a core that processes used."""
        return sum(self.figures.cpu_s[name] for name in names) / self.figures.window_s

    @property
    def disturbed_share(self) -> float:
        """The part of the router's core that went to other programs, or to none because the machine is a guest."""
        return max(0.0, 1 - self.figures.idle_s / self.figures.window_s - self.core_share("router"))

    @property
    def limited_by(self) -> str:
        """Whose core was full."""
        if self.core_share("router") >= BUSY * (1 - self.disturbed_share):
            return "router"
        return "clients" if self.core_share("clients", "workers") >= BUSY else "nobody"

    def to_json(self) -> dict[str, Any]:
        """Its figures."""
        figures, router_cpu_s = self.figures, self.figures.cpu_s["router"]
        return {
            "name": self.name,
            "api": self.api,
            "clients": self.load.num_clients,
            "answer_tokens": self.load.answer_tokens,
            "step_ms": self.pace.step_s * 1000,
            "tokens_per_step": self.pace.step_tokens,
            "answers_per_s": self.answers_per_s,
            "tokens_per_s": self.tokens_per_s,
            "offered_tokens_per_s": self.offered_tokens_per_s,
            "answers_per_router_cpu_s": figures.num_answers / router_cpu_s,
            "tokens_per_router_cpu_s": figures.num_tokens / router_cpu_s,
            "ttft_ms_p50": 1000 * quantile(figures.ttft_s, 0.5),
            "ttft_ms_p99": 1000 * quantile(figures.ttft_s, 0.99),
            **{f"{name}_core": self.core_share(name) for name in figures.cpu_s},
            "disturbed": self.disturbed_share,
            "limited_by": self.limited_by,
        }


def quantile(values: Sequence[float], part: float) -> float:
    """The value that so large a part of the others is not above; 0 without any."""
    return sorted(values)[min(len(values) - 1, int(part * len(values)))] if values else 0.0
