"""How large messages may be and how long connections idle: the one place for gRPC options that bound something."""

from typing import Final, TypeAlias

Options: TypeAlias = tuple[tuple[str, int], ...]

MIB = 1024 * 1024
MAX_CLUSTER_MESSAGE_BYTES = 32 * MIB  # a 131k-token prompt is 0.4 MB on the wire; this leaves room for any
MAX_PUBLIC_CALLS = 4096  # at once, of all clients of a router: far more than its workers run; the next is refused

PUBLIC_SERVER_OPTIONS: Final[Options] = (
    ("grpc.max_concurrent_streams", 1024),  # of one connection; a client's further calls wait at the client
    ("grpc.max_metadata_size", 16 * 1024),  # a call with more is refused; proxies and tracers add some
    ("grpc.keepalive_time_ms", 30_000),  # a client that vanished without a word is asked after so long,
    ("grpc.keepalive_timeout_ms", 20_000),  # and given up after so long without an answer: its work stops
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),  # clients that ping more often are disconnected
    ("grpc.max_connection_idle_ms", 15 * 60_000),  # connections without calls are closed
    ("grpc.server_handshake_timeout_ms", 20_000),  # of TLS and HTTP/2; an open socket that says nothing is closed
)
