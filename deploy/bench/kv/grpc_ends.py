"""A contestant: gRPC's Python library, a client stream of messages of bytes, copied into the pool as they come."""

import queue
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np

from deploy.bench.kv.ends import HOST, WAIT_S
from deploy.bench.kv.exchange import Exchange, Pool
from deploy.bench.remote import IsCalled

SERVICE, METHOD = "baton.bench.Blocks", "Give"
MESSAGE_BYTES = 1024 * 1024  # the fastest between 64 KiB and 4 MiB
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class GrpcSource:
    """Implements `Source`."""

    address = None

    def __init__(self, pool: Pool) -> None:
        self._blocks = pool.blocks.numpy()

    def open(self, target: int) -> None:
        """Opens a channel to the target's port."""
        self._channel = grpc.insecure_channel(f"{HOST}:{target}", options=OPTIONS)
        grpc.channel_ready_future(self._channel).result(WAIT_S)
        self._give: Any = self._channel.stream_unary(f"/{SERVICE}/{METHOD}")

    def give(self, exchange: Exchange) -> None:
        """One call; the target answers when it has everything."""
        self._give(self._messages(exchange), timeout=WAIT_S)

    def close(self) -> None:
        """Closes the channel."""
        self._channel.close()

    def _messages(self, exchange: Exchange) -> Iterator[bytes]:
        for block_id in exchange.source_ids:
            block = self._blocks[block_id]
            for first in range(0, len(block), MESSAGE_BYTES):
                yield block[first : first + MESSAGE_BYTES].tobytes()


class GrpcTarget:
    """Implements `Target` by a server of its own."""

    def __init__(self, pool: Pool, _source: None, _is_called: IsCalled) -> None:
        self._blocks = pool.blocks.numpy()
        self._exchanges: queue.SimpleQueue[Exchange] = queue.SimpleQueue()
        self._taken: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._server = grpc.server(ThreadPoolExecutor(1), options=OPTIONS)
        handlers: dict[str, Any] = {METHOD: grpc.stream_unary_rpc_method_handler(self._receive)}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        self.address = self._server.add_insecure_port(f"{HOST}:0")

    def open(self) -> None:
        """Starts to serve."""
        self._server.start()

    def take(self, exchange: Exchange) -> None:
        """Tells the server's thread where blocks go, and waits until they are there."""
        self._exchanges.put(exchange)
        self._taken.get(timeout=WAIT_S)

    def close(self) -> None:
        """Stops to serve."""
        self._server.stop(None).wait()

    def _receive(self, messages: Iterator[bytes], _context: grpc.ServicerContext) -> bytes:
        for block_id in self._exchanges.get(timeout=WAIT_S).target_ids:
            block = self._blocks[block_id]
            for first in range(0, len(block), MESSAGE_BYTES):
                block[first : first + MESSAGE_BYTES] = np.frombuffer(next(messages), dtype=np.uint8)
        self._taken.put(None)
        return b""
