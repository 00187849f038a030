"""Telling a gRPC client where the time of its answer has gone, if it asked: as over HTTP, in metadata."""

from router.observe.call import TIMING_HEADER, phases_asked
from router.rpc.context import Context


def tell_timing(context: Context) -> None:
    """Puts the phases of the current call into its trailing metadata, if its client asked."""
    phases = phases_asked()
    if phases is not None:
        context.set_trailing_metadata(((TIMING_HEADER, phases.server_timing()),))
