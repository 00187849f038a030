"""Cost curves of many workers as arrays: each at a number of its own, with the very results of `Curve.at`."""

from itertools import pairwise

import numpy as np

from core.cost import Curve
from router.dispatch.worker_rows import Floats

_WIDTH = 2  # where it stands among the parts of a segment: x0, y0, x1 - x0, y1 - y0


class CurveRows:
    """One curve per row. Segments are padded with such as no number reaches."""

    def __init__(self) -> None:
        self._curves: list[Curve] = []
        self._segments: Floats = np.zeros((4, 1, 0))  # [4, num_segments, num_rows]
        self._ends: Floats = np.zeros((0, 0))  # [num_segments - 1, num_rows]: where the next segment begins
        self._reshaped()

    def insert(self, row: int) -> None:
        """A row without a curve; those from `row` on move up by one."""
        self._curves.insert(row, Curve(((1.0, 0.0),)))
        self._segments = np.insert(self._segments, row, 0.0, axis=2)
        self._segments[_WIDTH, :, row] = 1.0
        self._ends = np.insert(self._ends, row, np.inf, axis=1)
        self._reshaped()

    def delete(self, row: int) -> None:
        """Takes a row out; those after it move down by one."""
        del self._curves[row]
        self._segments = np.delete(self._segments, row, axis=2)
        self._ends = np.delete(self._ends, row, axis=1)
        self._reshaped()

    def set(self, row: int, curve: Curve) -> None:
        """The curve of a row; costs nothing when it is the one that is there."""
        if curve is self._curves[row]:
            return
        self._curves[row] = curve
        points = (
            curve.points if len(curve.points) > 1 else (curve.points[0], (curve.points[0][0] + 1, curve.points[0][1]))
        )
        segments = list(pairwise(points))
        self._widen(len(segments))
        self._ends[:, row] = np.inf
        for number, ((x0, y0), (x1, y1)) in enumerate(segments):
            self._segments[:, number, row] = x0, y0, x1 - x0, y1 - y0
            if number:
                self._ends[number - 1, row] = x0

    def at(self, numbers: Floats) -> Floats:
        """Seconds by row, for one number each: [num_rows] -> [num_rows]."""
        if len(self._ends):
            num_passed = np.add.reduce((self._ends <= numbers).view(np.uint8), axis=0, dtype=np.uint16)
            which = num_passed * self._num_rows + self._rows
            start, seconds, width, rise = [part.take(which) for part in self._flat]
        else:
            start, seconds, width, rise = self._flat
        values: Floats = seconds + rise * np.maximum(numbers - start, 0.0) / width
        return values

    def _widen(self, num_segments: int) -> None:
        missing = num_segments - self._segments.shape[1]
        if missing > 0:
            num_rows = len(self._curves)
            empty = np.zeros((4, missing, num_rows))
            empty[_WIDTH] = 1.0
            self._segments = np.concatenate([self._segments, empty], axis=1)
            self._ends = np.concatenate([self._ends, np.full((missing, num_rows), np.inf)])
            self._reshaped()

    def _reshaped(self) -> None:
        """The arrays are new ones: what is derived from their shape follows."""
        self._num_rows = np.intp(len(self._curves))
        self._rows = np.arange(self._num_rows)
        self._flat = [part.reshape(-1) for part in self._segments]  # views
