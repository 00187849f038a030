"""A client of the router, and how its request ended."""

import threading
from concurrent import futures
from concurrent.futures import Future
from dataclasses import dataclass

import grpc
from baton.v1 import generate_pb2, generate_pb2_grpc

REQUEST_TIMEOUT_S = 90.0  # the router's: every request has ended by then, one way or another
GRACE_S = 15.0  # after which a client gives up on an answer that the router should have ended


@dataclass(frozen=True)
class Outcome:
    """How a request ended: with all tokens, or with the error its client got."""

    tokens: tuple[int, ...]
    code: grpc.StatusCode = grpc.StatusCode.OK
    details: str = ""

    @property
    def is_hung(self) -> bool:
        """Whether the client had to give up by itself: the router's own deadline says otherwise."""
        return self.code is grpc.StatusCode.DEADLINE_EXCEEDED and "did not end within" not in self.details


class Request:
    """One answer in the making, read by a thread of its own.

    Attributes:
        tokens: that have come so far.
        text: of them, as far as it is certain.
        usage: what the last message counts; empty before.
    """

    def __init__(self, stub: generate_pb2_grpc.GenerateServiceStub, message: generate_pb2.GenerateRequest) -> None:
        self.tokens: list[int] = []
        self.text = ""
        self.usage = generate_pb2.Usage()
        self._outcome: Future[Outcome] = Future()
        self._stub = stub
        self._call = stub.Generate(message, timeout=REQUEST_TIMEOUT_S + GRACE_S)
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def has_ended(self) -> bool:
        return self._outcome.done()

    def cancel(self) -> None:
        self._call.cancel()

    def abort(self) -> None:
        """Has the router end it, by the id that it gave it."""
        request_id = str(dict(self._call.initial_metadata())["x-request-id"])
        self._stub.AbortRequest(generate_pb2.AbortRequestRequest(request_id=request_id), timeout=GRACE_S)

    def wait(self, seconds: float) -> None:
        """Waits for the end, so long at most."""
        futures.wait((self._outcome,), seconds)

    def outcome(self) -> Outcome:
        """Waits for the end, which comes in bounded time."""
        return self._outcome.result(REQUEST_TIMEOUT_S + 2 * GRACE_S)

    def _read(self) -> None:
        try:
            for delta in self._call:
                self.tokens.extend(delta.token_ids)
                self.text += delta.text
                self.usage = delta.usage
        except grpc.RpcError as error:
            self._outcome.set_result(Outcome(tuple(self.tokens), error.code(), str(error.details())))
        else:
            self._outcome.set_result(Outcome(tuple(self.tokens)))
