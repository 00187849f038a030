"""A worker in a process of the benchmark's own, which tells its sender's totals."""

from dataclasses import dataclass
from typing import Self

from core.ids import WorkerEndpoint
from deploy.bench.remote import IsCalled
from worker.config import WorkerConfig
from worker.process import WorkerProcess


@dataclass(frozen=True, slots=True)
class SenderTotals:
    """Of all handoffs a worker has sent.

    Attributes:
        num_handoffs: that the target took over.
        num_bytes: moved.
        busy_s: seconds in which bytes were under way.
        exposed_s: of these, seconds after the last prompt token was computed.
        acknowledge_s: seconds from the last block's arrival to the target's acknowledgement.
        after_prompt_s: seconds from the last prompt token computed to the target's acknowledgement.
    """

    num_handoffs: int = 0
    num_bytes: int = 0
    busy_s: float = 0.0
    exposed_s: float = 0.0
    acknowledge_s: float = 0.0
    after_prompt_s: float = 0.0

    def since(self, earlier: Self) -> "SenderTotals":
        """What has come to it."""
        return SenderTotals(
            self.num_handoffs - earlier.num_handoffs,
            self.num_bytes - earlier.num_bytes,
            self.busy_s - earlier.busy_s,
            self.exposed_s - earlier.exposed_s,
            self.acknowledge_s - earlier.acknowledge_s,
            self.after_prompt_s - earlier.after_prompt_s,
        )


class HostedWorker:
    """Serves from construction until `close`."""

    def __init__(self, config: WorkerConfig, _is_called: IsCalled) -> None:
        self._process = WorkerProcess(config)

    def endpoint(self) -> WorkerEndpoint:
        """Where it serves."""
        return self._process.endpoint

    def totals(self) -> SenderTotals:
        """What it has sent, to whomever."""
        half = self._process.prefill
        pairs = list(half.pairs.values())
        return SenderTotals(
            num_handoffs=sum(pair.num_handoffs for pair in pairs),
            num_bytes=sum(pair.num_bytes for pair in pairs),
            busy_s=sum(pair.busy_s for pair in pairs),
            exposed_s=sum(pair.exposed_s for pair in pairs),
            acknowledge_s=sum(pair.acknowledge_s for pair in pairs),
            after_prompt_s=half.stats.exposed_s,
        )

    def close(self) -> None:
        """Stops the worker."""
        self._process.stop()
