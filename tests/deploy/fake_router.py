"""A router's control service whose answers a test scripts, on a real loopback gRPC server."""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import grpc
from baton.v1 import common_pb2, control_pb2, control_pb2_grpc, worker_pb2
from google.protobuf.message import Message

from core.errors import ERROR_CODE_KEY, BatonError

WAIT_S = 30.0


class FakeRouter(control_pb2_grpc.ControlServiceServicer):
    """Answers with what its attributes hold, and keeps every request.

    Attributes:
        requests: in the order in which they came.
        metadata: of each of them.
        refusal: what every call fails with; None to answer.
        refusals: what calls of one method fail with.
        steps: what a stream of progress sends.
        failure: what such a stream fails with after them; None for none.
        hangs: whether such a stream stays open after them.
        is_cancelled: set when a client has left such a stream; setting it ends one that hangs.
        answers: by method.
    """

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.metadata: list[Any] = []
        self.refusal: BatonError | None = None
        self.refusals: dict[str, BatonError] = {}
        self.steps: Sequence[control_pb2.RoleProgress] = ()
        self.failure: BatonError | None = None
        self.hangs = False
        self.is_cancelled = threading.Event()
        self.answers: dict[str, Message] = {
            "GetStatus": control_pb2.GetStatusResponse(model="demo"),
            "GetRoles": control_pb2.GetRolesResponse(is_leader=True),
            "ListRoleChanges": control_pb2.ListRoleChangesResponse(),
            "ListRoleDecisions": control_pb2.ListRoleDecisionsResponse(),
            "ListOperatorActions": control_pb2.ListOperatorActionsResponse(),
            "SetAutoRoles": control_pb2.SetAutoRolesResponse(),
            "UncordonWorker": control_pb2.UncordonWorkerResponse(),
            "ProbePair": control_pb2.ProbePairResponse(),
        }
        for method in self.answers:
            setattr(self, method, partial(self._answer, method))
        for method in ("SetRole", "RebalanceRoles", "DrainWorker", "RestartWorkers", "RestartRouters"):
            setattr(self, method, partial(self._stream, getattr(control_pb2, f"{method}Response")))
        self.server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
        control_pb2_grpc.add_ControlServiceServicer_to_server(self, self.server)
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def close(self) -> None:
        self.server.stop(None).wait(WAIT_S)

    def _answer(self, method: str, request: object, context: grpc.ServicerContext) -> Message:
        self._take(request, context)
        if method in self.refusals:
            fail(context, self.refusals[method])
        return self.answers[method]

    def _stream(self, answer: type[Message], request: object, context: grpc.ServicerContext) -> Iterator[Message]:
        self._take(request, context)
        yield from (answer(progress=step) for step in self.steps)
        if self.failure is not None:
            fail(context, self.failure)
        if self.hangs:
            if not context.add_callback(self.is_cancelled.set):  # the client has left already
                self.is_cancelled.set()
            self.is_cancelled.wait(WAIT_S)

    def _take(self, request: object, context: grpc.ServicerContext) -> None:
        self.requests.append(request)
        self.metadata.append(context.invocation_metadata())
        if self.refusal is not None:
            fail(context, self.refusal)


def fail(context: grpc.ServicerContext, error: BatonError) -> None:
    """Ends a call with an error, as the router does."""
    context.set_trailing_metadata(((ERROR_CODE_KEY, error.code),))
    context.abort(getattr(grpc.StatusCode, error.grpc_status), error.message)


@contextlib.contextmanager
def running_router() -> Iterator[FakeRouter]:
    router = FakeRouter()
    try:
        yield router
    finally:
        router.close()


def worker_id(name: str, incarnation: int = 1) -> common_pb2.WorkerId:
    return common_pb2.WorkerId(name=name, incarnation=incarnation)


def change(worker: str = "decode-0", stage: str = "ROLE_STAGE_VERIFIED", **fields: object) -> control_pb2.RoleChange:
    """A change from decode to prefill."""
    roles = {"from": common_pb2.ROLE_DECODE, "to": common_pb2.ROLE_PREFILL}
    return control_pb2.RoleChange(worker=worker, stage=stage, **{**roles, **fields})


def step(stage: str, message: str = "", worker: str = "decode-0", **fields: object) -> control_pb2.RoleProgress:
    return control_pb2.RoleProgress(worker=worker, stage=f"ROLE_STAGE_{stage}", message=message, **fields)


def worker_status(
    name: str, role: int = common_pb2.ROLE_DECODE, incarnation: int = 1, **load: object
) -> control_pb2.WorkerStatus:
    endpoint = common_pb2.WorkerEndpoint(worker=worker_id(name, incarnation))
    return control_pb2.WorkerStatus(
        hello=worker_pb2.WorkerHello(endpoint=endpoint, role_state=worker_pb2.RoleState(role=role)),
        load=worker_pb2.WorkerLoad(**load),
    )


def worker_role(name: str, role: int = common_pb2.ROLE_DECODE, **fields: object) -> control_pb2.WorkerRole:
    state = {key: fields.pop(key) for key in ("is_pinned", "is_cordoned") if key in fields}
    return control_pb2.WorkerRole(
        worker=worker_id(name), state=worker_pb2.RoleState(role=role, role_epoch=1, **state), **fields
    )
