"""Where Baton keeps what it can make again: the demo model, compiled kernels, measured costs, records of clusters."""

import os
from pathlib import Path


def cache_dir() -> Path:
    """`baton` in `$XDG_CACHE_HOME`, or in `~/.cache` when that is not set; may not exist yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "baton"
