"""The load under which roles are flipped: streams that run all the time, and a trickle of new prompts.

It runs on a thread with an event loop of its own, so that whoever flips can wait for the router meanwhile.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from baton.v1 import generate_pb2, generate_pb2_grpc

from deploy.bench.load import REQUEST_TIMEOUT_S
from deploy.bench.stream_record import StreamRecord, record_grpc
from rpc.channels import open_channel

MakeRequest = Callable[[int], generate_pb2.GenerateRequest]
"""The request of a number."""
Stub = generate_pb2_grpc.GenerateServiceStub


@dataclass(slots=True)
class FlipLoad:
    """Requests are numbered from 0 on, streams and prompts each. Entered once, with `running`.

    Attributes:
        grpc_address: `host:port` of the router's gRPC services.
        stream_request: with a long answer; when one ends its client sends the next.
        prompt_request: with a short answer.
        num_streams: clients of the former, all at once.
        prompt_every_s: seconds between two of the latter, whether or not earlier ones have ended.
        streams: records by number; of those that have ended.
        prompts: likewise.
    """

    grpc_address: str
    stream_request: MakeRequest
    prompt_request: MakeRequest
    num_streams: int
    prompt_every_s: float
    streams: dict[int, StreamRecord] = field(default_factory=dict, init=False)
    prompts: dict[int, StreamRecord] = field(default_factory=dict, init=False)
    _is_ending: bool = field(default=False, init=False)
    _may_send: threading.Event = field(default_factory=threading.Event, init=False)
    _num_streams_sent: int = field(default=0, init=False)

    @property
    def records(self) -> list[StreamRecord]:
        """Of all requests that have ended."""
        return [*self.streams.values(), *self.prompts.values()]

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """The load lasts as long as the context; leaving it waits for the requests under way."""
        self._may_send.set()
        thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="load", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._is_ending = True
            self._may_send.set()
            thread.join()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Within, nothing new is sent; what is under way goes on."""
        self._may_send.clear()
        try:
            yield
        finally:
            self._may_send.set()

    async def _run(self) -> None:
        async with open_channel(self.grpc_address) as channel, asyncio.TaskGroup() as group:
            stub = Stub(channel)
            for _ in range(self.num_streams):
                group.create_task(self._stream_client(stub))
            await self._send_prompts(stub, group)

    async def _stream_client(self, stub: Stub) -> None:
        while await self._may_go_on():
            number = self._num_streams_sent
            self._num_streams_sent += 1
            self.streams[number] = await record_grpc(stub, self.stream_request(number), REQUEST_TIMEOUT_S)

    async def _send_prompts(self, stub: Stub, group: asyncio.TaskGroup) -> None:
        number = 0
        while await self._may_go_on():
            group.create_task(self._prompt(stub, number))
            number += 1
            await asyncio.sleep(self.prompt_every_s)

    async def _prompt(self, stub: Stub, number: int) -> None:
        self.prompts[number] = await record_grpc(stub, self.prompt_request(number), REQUEST_TIMEOUT_S)

    async def _may_go_on(self) -> bool:
        """Waits while the load is paused; False when it is to end."""
        if not self._may_send.is_set():
            await asyncio.to_thread(self._may_send.wait)
        return not self._is_ending
