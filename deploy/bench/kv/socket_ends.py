"""A contestant: one TCP connection, `sendall` of each block where it lies and `recv_into` where it belongs."""

import socket

from deploy.bench.kv.ends import HOST, WAIT_S
from deploy.bench.kv.exchange import Exchange, Pool
from deploy.bench.remote import IsCalled

DONE = b"."


class SocketSource:
    """Implements `Source`."""

    address = None

    def __init__(self, pool: Pool) -> None:
        self._blocks = pool.blocks.numpy()

    def open(self, target: int) -> None:
        """Connects to the target's port."""
        self._socket = socket.create_connection((HOST, target), WAIT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def give(self, exchange: Exchange) -> None:
        """Ends with the target's word that it has everything."""
        for block_id in exchange.source_ids:
            self._socket.sendall(self._blocks[block_id].data)
        if self._socket.recv(1) != DONE:
            raise ConnectionError("the target has closed the connection")

    def close(self) -> None:
        """Hangs up."""
        self._socket.close()


class SocketTarget:
    """Implements `Target`."""

    def __init__(self, pool: Pool, _source: None, _is_called: IsCalled) -> None:
        self._blocks = pool.blocks.numpy()
        self._listener = socket.create_server((HOST, 0))
        self.address = self._listener.getsockname()[1]

    def open(self) -> None:
        """Waits for the source."""
        self._listener.settimeout(WAIT_S)
        self._socket, _ = self._listener.accept()
        self._socket.settimeout(WAIT_S)

    def take(self, exchange: Exchange) -> None:
        """Receives every block straight into its place."""
        for block_id in exchange.target_ids:
            rest = self._blocks[block_id].data
            while rest:
                if not (num_bytes := self._socket.recv_into(rest)):
                    raise ConnectionError("the source has closed the connection")
                rest = rest[num_bytes:]
        self._socket.sendall(DONE)

    def close(self) -> None:
        """Hangs up."""
        self._socket.close()
        self._listener.close()
