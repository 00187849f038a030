"""Objects of listed types as bytes. Pickle is compact and fast, but by itself calls whatever the bytes name.

Ranks meet at a port that asks nobody who they are. So what comes from there may name the listed types and a few of
Python's and numpy's own, none of which does anything but hold values. See "Restricting Globals" in Python's
documentation of pickle.
"""

import collections
import io
import pickle
from collections.abc import Iterable
from typing import Any

import numpy as np

from core.errors import ShardGroupError

PROTOCOL = 4  # by 5, the default from Python 3.14 on, arrays name functions that are in no list

VALUES: dict[tuple[str, str], Any] = {
    ("builtins", "range"): range,
    ("builtins", "set"): set,
    ("collections", "defaultdict"): collections.defaultdict,
    ("collections", "deque"): collections.deque,
    ("numpy", "dtype"): np.dtype,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
}
"""What sequences' rules consist of, by the names that pickle gives them. Tuples, numbers and text need none."""


class PlainPickle:
    """Writes anything that can be pickled, and reads only what consists of listed types.

    Args:
        kinds: classes whose instances may come, beside those of `VALUES`.
    """

    def __init__(self, kinds: Iterable[type]) -> None:
        self._allowed = VALUES | {(kind.__module__, kind.__qualname__): kind for kind in kinds}

    @staticmethod
    def dumps(value: Any) -> bytes:  # noqa: ANN401 - anything that can be pickled
        """The bytes of a value."""
        return pickle.dumps(value, PROTOCOL)

    def loads(self, content: bytes) -> Any:  # noqa: ANN401 - of a listed type
        """The value of bytes.

        Raises:
            ShardGroupError: they name something else, which is not touched, or are no pickle.
        """
        try:
            return _Reader(io.BytesIO(content), self._allowed).load()
        except ShardGroupError:
            raise
        except Exception as error:  # bytes that are no pickle can fail in any way
            raise ShardGroupError(f"a rank was sent {len(content)} bytes that are no message: {error!r}") from error


class _Reader(pickle.Unpickler):
    def __init__(self, content: io.BytesIO, allowed: dict[tuple[str, str], Any]) -> None:
        super().__init__(content)
        self._allowed = allowed

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 - a class, or numpy's function
        """Called for every name in the bytes; nothing is imported."""
        try:
            return self._allowed[module, name]
        except KeyError:
            raise ShardGroupError(
                f"a rank was sent {module}.{name}, which no rank sends; is something else at the ports of its worker?"
            ) from None
