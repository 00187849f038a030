"""When the garbage collector looks at a process. What it finds is not decided here."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def frozen_heap() -> Iterator[None]:
    """Within, the collector passes over what there was before: modules and classes above all.

    In a router that is 150,000 objects, which held up everybody for 76 ms each time; in a load's client it took
    43 ms, in which nothing is sent and nothing read.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def rare_collections(*thresholds: int) -> Iterator[None]:
    """Within, the collector looks as rarely as that; Python's 700 is for nothing where what is made ends by itself.

    Args:
        thresholds: as of `gc.set_threshold`; those that are left out stay.
    """
    before = gc.get_threshold()
    gc.set_threshold(*thresholds)
    try:
        yield
    finally:
        gc.set_threshold(*before)
