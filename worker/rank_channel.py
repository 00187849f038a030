"""How the ranks of a worker talk over gRPC: options under which a dead peer is noticed although nothing is said."""

PING_S = 5  # a process that dies closes its connections at once; pings find dead machines and stopped processes
PING_TIMEOUT_S = 10  # gRPC answers pings on threads of its own, so only a machine that stands still takes longer

CHANNEL_OPTIONS = (
    ("grpc.keepalive_time_ms", PING_S * 1000),
    ("grpc.keepalive_timeout_ms", PING_TIMEOUT_S * 1000),
    ("grpc.http2.max_pings_without_data", 0),
)
SERVER_OPTIONS = (*CHANNEL_OPTIONS, ("grpc.http2.min_ping_interval_without_data_ms", PING_S * 500))
