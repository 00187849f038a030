"""All synthetic workers of a measurement, in one process."""

from baton.v1 import control_pb2, control_pb2_grpc

from core.ids import WorkerEndpoint
from core.request import Role
from deploy.bench.remote import IsCalled
from deploy.bench.router.event_loop import LoopThread
from deploy.bench.router.pace import Pace
from deploy.bench.router.prompts import AnswerTokens
from deploy.bench.router.synthetic_worker import Sequence, SyntheticWorker
from rpc.channels import open_channel
from worker import wire

REGISTER_TIMEOUT_S = 10.0


class WorkerHost:
    """Has the workers serve from construction until `close`.

    Args:
        num_workers: at least two; every second one is for decoding.
        answer: what they say.
        max_model_len: of the model.
    """

    def __init__(self, num_workers: int, answer: AnswerTokens, max_model_len: int, _is_called: IsCalled) -> None:
        self._thread = LoopThread()
        self._workers: dict[str, SyntheticWorker] = {}
        self._thread.call(self._start(num_workers, answer, max_model_len))

    def register(self, cluster_address: str) -> None:
        """Has a router attach to all of them."""
        self._thread.call(self._register(cluster_address))

    def set_pace(self, pace: Pace) -> None:
        """Changes the pace of all decode workers."""
        self._thread.call(self._set_pace(pace))

    def idle_steps(self) -> dict[str, int] | None:
        """Steps of each by its name, or None while any has something under way, or left to send."""
        workers = self._workers
        if not all(worker.is_idle for worker in workers.values()):
            return None
        return {name: worker.num_steps for name, worker in workers.items()}

    def take_inside_s(self) -> list[float]:
        """Seconds that each prompt since the last call spent in its prefill worker, in the order of their arrival."""
        return self._thread.call(self._take_inside_s())

    def close(self) -> None:
        """Ends all streams."""
        self._thread.call(self._stop())
        self._thread.close()

    async def _start(self, num_workers: int, answer: AnswerTokens, max_model_len: int) -> None:
        self._endpoints: list[WorkerEndpoint] = []
        for number in range(num_workers):
            role = Role.DECODE if number % 2 else Role.PREFILL
            name = f"{role}-{number // 2}"
            self._workers[name] = SyntheticWorker(name, role, answer, max_model_len, self._hand_over)
            self._endpoints.append(await self._workers[name].start())

    def _hand_over(self, sequence: Sequence) -> None:
        self._workers[sequence.decode].take_over(sequence.handoff_id)

    async def _register(self, cluster_address: str) -> None:
        async with open_channel(cluster_address) as channel:
            stub = control_pb2_grpc.MembershipServiceStub(channel)
            for endpoint in self._endpoints:
                request = control_pb2.RegisterWorkerRequest(endpoint=wire.endpoint_to_proto(endpoint))
                await stub.RegisterWorker(request, timeout=REGISTER_TIMEOUT_S)

    async def _set_pace(self, pace: Pace) -> None:
        for worker in self._workers.values():
            worker.pace = pace

    async def _take_inside_s(self) -> list[float]:
        stays = sorted(stay for worker in self._workers.values() for stay in worker.take_stays())
        return [left_s - came_s for came_s, left_s in stays]

    async def _stop(self) -> None:
        for worker in self._workers.values():
            await worker.stop()
