"""One streamed answer as a client sees it: when each piece of it came, or why none did."""

import json
import time
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
from baton.v1 import generate_pb2, generate_pb2_grpc


@dataclass(frozen=True, slots=True)
class StreamRecord:
    """An answer that has ended. Times are seconds on `time.perf_counter`.

    Attributes:
        sent_s: when the request was sent.
        times_s: when each piece came; normally a token each. Over HTTP tokens without text are no piece.
        num_prompt_tokens: as the server counted them; 0 when it failed.
        num_tokens: generated, as the server counted them; 0 when it failed.
        failure: why it failed; empty when it did not.
        token_ids: of all tokens that came; none over HTTP, which has only text.
    """

    sent_s: float
    times_s: tuple[float, ...]
    num_prompt_tokens: int = 0
    num_tokens: int = 0
    failure: str = ""
    token_ids: tuple[int, ...] = ()

    @property
    def ttft_s(self) -> float:
        """From sending the request to its first piece; of an answer that has any."""
        return self.times_s[0] - self.sent_s

    @property
    def tpot_s(self) -> float:
        """Mean seconds per token after the first; of an answer with pieces."""
        return (self.times_s[-1] - self.times_s[0]) / max(1, self.num_tokens - 1)


async def record_http(client: httpx.AsyncClient, body: dict[str, Any]) -> StreamRecord:
    """Asks for one chat completion and waits for its end. A request that fails is a record, too."""
    streamed = {**body, "stream": True, "stream_options": {"include_usage": True}}
    sent_s = time.perf_counter()
    times_s: list[float] = []
    usage: dict[str, int] = {}
    failure = ""
    try:
        async with client.stream("POST", "/v1/chat/completions", json=streamed) as answer:
            if answer.is_error:
                failure = (await answer.aread()).decode()
            async for line in answer.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                chunk = json.loads(line.removeprefix("data: "))
                failure = failure or chunk.get("error", {}).get("message", "")
                if chunk.get("choices") and chunk["choices"][0]["delta"].get("content"):
                    times_s.append(time.perf_counter())
                usage = chunk.get("usage") or usage
    except httpx.HTTPError as error:
        failure = repr(error)
    if failure or not usage:
        return StreamRecord(sent_s, tuple(times_s), failure=failure or "the answer broke off")
    return StreamRecord(sent_s, tuple(times_s), usage["prompt_tokens"], usage["completion_tokens"])


async def record_grpc(
    stub: generate_pb2_grpc.GenerateServiceStub, request: generate_pb2.GenerateRequest, timeout_s: float
) -> StreamRecord:
    """The same over the gRPC API, which tells every token as it comes, also those that have no text by themselves."""
    sent_s = time.perf_counter()
    times_s: list[float] = []
    token_ids: list[int] = []
    usage = generate_pb2.Usage()
    failure = ""
    try:
        async for message in stub.Generate(request, timeout=timeout_s):
            if message.token_ids:
                times_s.append(time.perf_counter())
                token_ids += message.token_ids
            usage = message.usage
    except grpc.aio.AioRpcError as error:
        failure = f"{error.code().name}: {error.details()}"
    counts = (0, 0) if failure else (usage.prompt_tokens, usage.completion_tokens)
    return StreamRecord(sent_s, tuple(times_s), *counts, failure, tuple(token_ids))
