"""Workers and requests as the router's tests need them."""

from typing import Any

from core.clock import Clock, ManualClock
from core.ids import WorkerEndpoint, WorkerId
from core.request import Assignment, GenerationRequest, Role
from core.roles import RoleOrder, RoleState
from core.sampling import SamplingParams
from router.fleet.hello import WorkerHello
from router.fleet.link import WorkerLink
from router.fleet.prefixes import FleetPrefixes
from router.meter import RequestMeter
from router.observe.request_times import RequestObserver, RequestWatch
from router.roles.snapshot import Limits
from tests.builders import cost_model

LIMITS = Limits(ttft_s=1.0, tpot_s=0.1)
LAYOUT = (("num_layers", 2), ("kv_heads", 1), ("block_tokens", 4), ("head_dim", 8), ("dtype", "float32"))


def worker_hello(endpoint: WorkerEndpoint, role: Role, **changes: Any) -> WorkerHello:  # noqa: ANN401 - any field
    """What a small worker says of itself."""
    fields = {
        "endpoint": endpoint,
        "role_state": RoleState(role, epoch=3),
        "fingerprint": "abc",
        "layout": LAYOUT,
        "block_tokens": 4,
        "block_bytes": 1024,
        "num_blocks": 100,
        "max_num_seqs": 8,
        "max_model_len": 64,
        "cost_model": cost_model(),
    }
    return WorkerHello(**{**fields, **changes})


def generation_request(
    request_id: str = "r", prompt: tuple[int, ...] = (1, 2, 3), max_tokens: int = 8, seed: int = 11
) -> GenerationRequest:
    """A request whose answer ends with token 9 at the latest after `max_tokens`."""
    return GenerationRequest(request_id, prompt, max_tokens, SamplingParams(seed=seed), frozenset({9}))


def request_meter() -> RequestMeter:
    """A meter that nobody looks at, in a time that stands still."""
    return RequestMeter(ManualClock(), LIMITS)


def request_watch(*observers: RequestObserver, clock: Clock | None = None) -> RequestWatch:
    """Tells observers what happens to requests; without a clock, in a time that stands still."""
    return RequestWatch(clock or ManualClock(), LIMITS, observers)


class RecordingLink(WorkerLink):
    """An attached worker in memory that keeps the orders it is sent."""

    def __init__(self, name: str, role: Role, incarnation: int = 1, **changes: Any) -> None:  # noqa: ANN401
        endpoint = WorkerEndpoint(WorkerId(name, incarnation), f"{name}:1")
        super().__init__(endpoint, "router", ManualClock(), heartbeat_timeout_s=10.0)
        self.hello = worker_hello(endpoint, role, **changes)
        self.assigned: list[Assignment] = []
        self.cancelled: list[str] = []
        self.role_orders: list[RoleOrder] = []
        self.migrations: list[tuple[str, Assignment]] = []
        self.recalled: list[int] = []
        self.leaves: list[float | None] = []

    def assign(self, assignment: Assignment) -> None:
        self.assigned.append(assignment)

    def cancel(self, handoff_id: str) -> None:
        self.cancelled.append(handoff_id)

    def set_role(self, order: RoleOrder) -> None:
        super().set_role(order)
        self.role_orders.append(order)

    def migrate(self, handoff_id: str, new: Assignment) -> None:
        self.migrations.append((handoff_id, new))

    def recall(self, num_tokens: int) -> None:
        self.recalled.append(num_tokens)

    def leave(self, drain_timeout_s: float | None) -> None:
        self.leaves.append(drain_timeout_s)

    def books(self) -> tuple[int, int, int, int]:
        """Prompt tokens, sequences, blocks and context tokens charged to it."""
        taken = self.assigned_sequences, self.assigned_blocks, self.assigned_context_tokens
        return self.assigned_prompt_tokens, *taken


class MemoryFleet:
    """The part of a fleet that a dispatcher asks: who is there."""

    def __init__(self, *links: RecordingLink) -> None:
        self.members = list(links)
        self._known: set[RecordingLink] = set()
        self.prefixes = FleetPrefixes()

    def links(self) -> list[RecordingLink]:
        return sorted((link for link in self.members if link.hello), key=lambda link: link.worker)

    def has(self, link: RecordingLink) -> bool:
        return link.hello is not None and link in self.members

    def take_changed(self) -> list[RecordingLink]:
        """All that were ever here: tests change what they like."""
        self._known.update(self.members)
        return list(self._known)

    def silent_s(self, link: RecordingLink) -> float:
        return 0.25 if link.hello else 60.0

    def why_missing(self) -> str:
        return ""

    def taking(self, half: Role) -> list[RecordingLink]:
        return [link for link in self.links() if link.takes(half)]
