"""A router's stream to one worker, blocking, which times what it hears. Places nothing: the benchmark decides."""

import queue
import time

import grpc
from baton.v1 import worker_pb2, worker_pb2_grpc

from core.errors import HandoffError, UnavailableError
from core.ids import WorkerEndpoint
from core.request import Assignment
from router import hello_wire, wire
from rpc.channels import open_sync_channel

ROUTER_ID = "bench"
TIMEOUT_S = 900.0  # of the whole stream, which lives as long as the measurement


class WorkerStream:
    """Attached from construction until `close`.

    Attributes:
        endpoint: of the worker.
    """

    def __init__(self, endpoint: WorkerEndpoint) -> None:
        self.endpoint = endpoint
        self._orders: queue.SimpleQueue[worker_pb2.AttachRequest | None] = queue.SimpleQueue()
        self._orders.put(wire.router_hello_to_proto(ROUTER_ID))
        self._channel = open_sync_channel(endpoint.address)
        self._call = worker_pb2_grpc.WorkerServiceStub(self._channel).Attach(
            iter(self._orders.get, None), timeout=TIMEOUT_S
        )
        self._hello = hello_wire.hello_from_proto(self._next().hello)

    def assign(self, work: Assignment) -> None:
        """Gives the worker its part of a request."""
        self._orders.put(wire.assignment_to_proto(work, self._hello.role_state.epoch))

    def wait_token(self, handoff_id: str, position: int) -> float:
        """Reads on until a token comes; returns when that was, as `time.perf_counter` counts.

        Raises:
            HandoffError: the worker gave the work back.
            UnavailableError: it ended the stream, or is dead.
        """
        while True:
            report = wire.report_from_proto(self._next().report)
            for work in report.returned:
                raise HandoffError(f"worker {self.endpoint.worker} gave {work.handoff_id} back: {work.message}")
            if any(run.handoff_id == handoff_id and position in run.positions for run in report.runs):
                return time.perf_counter()

    def close(self) -> None:
        """Hangs up."""
        self._orders.put(None)
        self._call.cancel()
        self._channel.close()

    def _next(self) -> worker_pb2.AttachResponse:
        try:
            message: worker_pb2.AttachResponse = next(self._call)
        except (StopIteration, grpc.RpcError) as error:
            raise UnavailableError(f"worker {self.endpoint.worker} ended the stream: {error!r}") from error
        return message
