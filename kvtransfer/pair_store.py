"""Where two processes exchange what they need to form a `PairGroup`: a store of torch's kind over one connection.

torch's own TCPStore asks the name server about every connection it makes, and waits for seconds where that is slow.
"""

import socket
import struct
import time
from datetime import timedelta

from torch.distributed import Store  # type: ignore[attr-defined] # missing in its stubs

JOIN_S = 3.0  # both ends are alive and know of each other, so this is a matter of milliseconds
FRAME = struct.Struct("!II")  # bytes of the key, bytes of the value; then both
MAX_FRAME_BYTES = 1 << 20  # addresses are exchanged here


class PairStore(Store):
    """One end; what is set at either is found at both. Used by one thread at a time.

    Args:
        connection: to the other end; closed by this object.
    """

    def __init__(self, connection: socket.socket) -> None:
        super().__init__()
        self._connection = connection
        self._values: dict[str, bytes] = {}

    def set(self, key: str, value: bytes | str) -> None:
        """Sets a value at both ends. Raises OSError when the other is gone."""
        content = value.encode() if isinstance(value, str) else bytes(value)
        self._values[key] = content
        self._connection.settimeout(JOIN_S)
        self._connection.sendall(FRAME.pack(len(key.encode()), len(content)) + key.encode() + content)

    def get(self, key: str) -> bytes:
        """Waits for a value. Raises OSError when it has not come in time, however much else has."""
        deadline_s = time.monotonic() + JOIN_S
        while key not in self._values:
            self._receive(deadline_s)
        return self._values[key]

    def wait(self, keys: list[str], _timeout: timedelta | None = None) -> None:
        """Waits for values as `get` does."""
        for key in keys:
            self.get(key)

    def close(self) -> None:
        """Ends the connection."""
        self._connection.close()

    def _receive(self, deadline_s: float) -> None:
        key_bytes, value_bytes = FRAME.unpack(self._read(FRAME.size, deadline_s))
        if key_bytes + value_bytes > MAX_FRAME_BYTES:
            raise ConnectionError(f"the other end sends {key_bytes + value_bytes} bytes at once")
        key = self._read(key_bytes, deadline_s).decode(errors="replace")
        self._values[key] = self._read(value_bytes, deadline_s)

    def _read(self, num_bytes: int, deadline_s: float) -> bytes:
        content = bytearray()
        while len(content) < num_bytes:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError(f"the other end has not said all within {JOIN_S:g} s")
            self._connection.settimeout(left_s)
            got = self._connection.recv(num_bytes - len(content))
            if not got:
                raise ConnectionError("the other end has closed the connection")
            content += got
        return bytes(content)
