"""What all gRPC services of the router share: the context's type, and how a call ends with an error."""

from typing import NoReturn

from core.errors import BatonError
from router.observe.call import note_refusal
from rpc import abort as calls
from rpc.abort import Context

__all__ = ["Context", "abort"]


async def abort(context: Context, error: BatonError) -> NoReturn:
    """Ends a call as `rpc.abort` does; whoever watches the call hears of it."""
    note_refusal(error)
    await calls.abort(context, error)
