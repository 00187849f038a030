"""A client of `GenerateService`: many calls over one channel, messages kept as they come."""

import time
from collections.abc import Sequence
from contextlib import AsyncExitStack

import grpc
from baton.v1 import common_pb2, generate_pb2, generate_pb2_grpc

from core.errors import InternalError
from deploy.bench.router.asking import Answer, Load
from rpc.channels import open_channel


class GrpcConnection:
    """See `asking.Connection`; it shares its channel with the others."""

    def __init__(self, stub: generate_pb2_grpc.GenerateServiceStub) -> None:
        self._stub = stub

    async def ask(self, request: generate_pb2.GenerateRequest, answer: Answer) -> None:
        """See `Connection.ask`."""
        answer.sent_s = time.perf_counter()
        try:
            async for message in self._stub.Generate(request):
                answer.parts.append(message)
                answer.first_s = answer.first_s or time.perf_counter()
        except grpc.aio.AioRpcError as error:
            raise InternalError(f"a request was refused: {error.code().name}: {error.details()}") from error
        answer.ended_s = time.perf_counter()

    async def close(self) -> None:
        """See `Connection.close`: a call ends with the task that makes it."""


class GrpcApi:
    """See `asking.Api`; of a router at `host:port`. Answers are always streamed."""

    def __init__(self, address: str, model: str) -> None:
        self._address = address
        self._model = model
        self._stack = AsyncExitStack()
        self._stub: generate_pb2_grpc.GenerateServiceStub | None = None

    def request(self, prompt: str, load: Load) -> generate_pb2.GenerateRequest:
        """See `Api.request`."""
        message = generate_pb2.ChatMessage(role="user", content=prompt)
        return generate_pb2.GenerateRequest(
            model=self._model, chat=generate_pb2.ChatPrompt(messages=[message]), max_tokens=load.answer_tokens
        )

    async def connect(self) -> GrpcConnection:
        """See `Api.connect`."""
        if self._stub is None:
            channel = await self._stack.enter_async_context(open_channel(self._address))
            self._stub = generate_pb2_grpc.GenerateServiceStub(channel)
        return GrpcConnection(self._stub)

    def words(self, parts: Sequence[generate_pb2.GenerateResponse]) -> list[str]:
        """See `Api.words`."""
        words = "".join(part.text for part in parts).split()
        is_complete = bool(parts) and parts[-1].finish_reason != common_pb2.FINISH_REASON_UNSPECIFIED
        if is_complete and parts[-1].usage.completion_tokens != len(words):
            raise InternalError(f"an answer of {len(words)} tokens says of itself: {parts[-1].usage}")
        return words

    async def close(self) -> None:
        """Ends all calls."""
        await self._stack.aclose()
