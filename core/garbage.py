"""How often the garbage collector looks at a process that serves. What it finds is not decided here."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

# Objects that came and stayed since the youngest were last looked at, and how often that happens before older ones
# are. Python's 700 has it look at a busy router twenty times a second, for nothing: what it makes ends by itself.
THRESHOLDS = (10_000, 10, 10)


@contextmanager
def rare_collections() -> Iterator[None]:
    """For processes that have started and now serve: shorter pauses, and fewer, for as long as the context lasts.

    What there is at the beginning, modules and classes above all, is never looked at: in a router 150,000 objects,
    which held up everybody for 76 ms each time.
    """
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
