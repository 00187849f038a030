"""What the loop tells each router after a step, collected while the step runs."""

from collections import defaultdict
from dataclasses import dataclass, field

from core.events import ReturnedWork, TokenEvent, WorkerLoad
from core.kv_events import KvEvents, KvSnapshot


@dataclass(slots=True)
class StepReport:
    """One message to one router.

    Attributes:
        tokens: in the order of generation.
        returned: work given back, after the tokens.
        load: the worker's load after the step; set when the report is sent.
        kv_events: names that came or went in the step; None when there are none.
        kv_snapshot: a part of all names; alone in its report.
    """

    tokens: list[TokenEvent] = field(default_factory=list)
    returned: list[ReturnedWork] = field(default_factory=list)
    load: WorkerLoad = field(default_factory=WorkerLoad)
    kv_events: KvEvents | None = None
    kv_snapshot: KvSnapshot | None = None


class StepOutbox:
    """Implements `kvtransfer.port.Outbox` by sorting events by router."""

    def __init__(self) -> None:
        self._reports: defaultdict[str, StepReport] = defaultdict(StepReport)

    def token(self, router_id: str, event: TokenEvent) -> None:
        """See `Outbox.token`."""
        self._reports[router_id].tokens.append(event)

    def returned(self, router_id: str, work: ReturnedWork) -> None:
        """See `Outbox.returned`."""
        self._reports[router_id].returned.append(work)

    def take(self) -> dict[str, StepReport]:
        """Everything collected since the last call, by router id."""
        reports, self._reports = dict(self._reports), defaultdict(StepReport)
        return reports
