"""What all gRPC services of the router share: the context's type, and how a call ends with an error."""

from typing import NoReturn

import rpc.abort
from core.errors import BatonError
from router.observe.call import note_refusal
from rpc.abort import Context

__all__ = ["Context", "abort"]


async def abort(context: Context, error: BatonError) -> NoReturn:
    """Ends a call with an error; whoever observes the call hears which."""
    note_refusal(error)
    await rpc.abort.abort(context, error)
