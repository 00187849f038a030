"""Orders to restart over gRPC; what they do is tested in tests/router/roles/test_restarts.py."""

import asyncio

import grpc
import pytest
from baton.v1 import control_pb2

from core.errors import ERROR_CODE_KEY
from tests.router.fleet.scripted_worker import WAIT_S
from tests.router.roles.world import DRAIN_TIMEOUT_S
from tests.router.rpc.test_role_calls import Served, served

__all__ = ["served"]  # a fixture


@pytest.mark.parametrize(("fields", "timeout_s"), [({}, DRAIN_TIMEOUT_S), ({"drain_timeout_s": 0.0}, 0.0)])
async def test_worker_is_told_to_leave_within_the_time_said_or_that_of_the_router(
    served: Served, fields: dict[str, float], timeout_s: float
) -> None:
    request = control_pb2.RestartWorkersRequest(workers=["d0"], actor="me", **fields)
    call = served.stub.RestartWorkers(request, timeout=WAIT_S)
    first = await call.read()
    assert (first.progress.worker, first.progress.message) == ("d0", "d0 has been told to leave")
    async with asyncio.timeout(WAIT_S):
        while not served.world.link("d0").leaves:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
    assert served.world.link("d0").leaves == [timeout_s]
    call.cancel()
    await served.world.restarts.close()


@pytest.mark.parametrize(
    ("fields", "words"),
    [({"workers": ["d7"]}, "no worker 'd7' is attached"), ({"drain_timeout_s": -1.0}, "the drain timeout is -1")],
)
async def test_order_that_cannot_be_carried_out_ends_the_call_with_its_error(
    served: Served, fields: dict[str, object], words: str
) -> None:
    call = served.stub.RestartWorkers(control_pb2.RestartWorkersRequest(actor="me", **fields), timeout=WAIT_S)
    with pytest.raises(grpc.aio.AioRpcError, match=words) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (ERROR_CODE_KEY, "invalid_value") in tuple(caught.value.trailing_metadata() or ())


async def test_router_is_told_to_leave_and_says_which_it_is(served: Served) -> None:
    call = served.stub.RestartRouters(
        control_pb2.RestartRoutersRequest(actor="me", drain_timeout_s=3.0), timeout=WAIT_S
    )
    answers = [answer async for answer in call]
    assert [(answer.router_id, answer.progress.is_last) for answer in answers] == [("router-1", True)]
    departure = served.world.departure
    assert (departure.is_ordered, departure.timeout_s) == (True, 3.0)
