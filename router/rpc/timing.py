"""Telling a gRPC client where the time of its answer has gone, when it asks: as over HTTP, in metadata."""

from router.observe.phases import Phases
from router.observe.timing import TIMING_HEADER, wants_timing
from router.rpc.context import Context


def tell_timing(context: Context, phases: Phases | None) -> None:
    """Puts the phases into the trailing metadata of a call whose metadata asks for them."""
    if phases is not None and wants_timing(metadata_of(context)):
        context.set_trailing_metadata(((TIMING_HEADER, phases.server_timing()),))


def metadata_of(context: Context) -> dict[str, str]:
    """The text entries of a call's metadata; of several with one name, the last."""
    entries = context.invocation_metadata() or ()
    return {name: value for name, value in entries if isinstance(value, str)}
