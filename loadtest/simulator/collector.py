"""Python's collector of cycles, told to look rarely while millions of objects come and go that have none."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

RARELY = 200_000  # new objects between two looks; 700 is Python's default, which takes a seventh of a run


@contextmanager
def rare_collections() -> Iterator[None]:
    """Restores the collector's own habit afterwards."""
    before = gc.get_threshold()
    gc.set_threshold(RARELY, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
