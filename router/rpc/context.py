"""What all gRPC services of the router share: the context's type, and how a call ends with an error."""

from rpc.abort import Context, abort

__all__ = ["Context", "abort"]
