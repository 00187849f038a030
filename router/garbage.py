"""How Python looks for garbage while a router serves: rarely, and not among what lives as long as the process."""

import contextlib
import gc
from collections.abc import Iterator

# New objects in cycles until the youngest are looked through; Python's 700 are those of three requests, and most of
# what it finds alive then is dead a millisecond later. Less than a megabyte waits for it.
NUM_YOUNGEST = 10_000


@contextlib.contextmanager
def collecting_rarely() -> Iterator[None]:
    """While the context lasts, what was there before is not looked through again, and the rest less often.

    For one process and the time it serves: a sixth of the processor time of a short request goes into this otherwise,
    for a few hundred thousand objects of libraries and of kept requests are looked through again and again.
    """
    thresholds = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(NUM_YOUNGEST, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()
