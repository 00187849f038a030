"""Keeps a defect in one request from those that come after it in a report, and from the worker's stream."""

import logging
from collections.abc import Callable

from core.errors import BatonError, InternalError
from router.dispatch.generation import ActiveGeneration

logger = logging.getLogger(__name__)


def contained(
    fail: Callable[[ActiveGeneration, BatonError], None],
    handle: Callable[..., None],
    generation: ActiveGeneration,
    *what: object,
) -> None:
    """Has `handle(generation, *what)` done; what that raises makes the request fail, and goes no further."""
    try:
        handle(generation, *what)
    except Exception as error:
        logger.exception("a defect while request %s was served", generation.request_id)
        try:
            fail(generation, InternalError(f"{type(error).__name__} in the router; see its log"))
        except Exception:
            logger.exception("a defect while request %s was to fail", generation.request_id)
