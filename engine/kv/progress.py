"""How far a rank's engine is in its current step, for the thread that moves KV while the engine computes."""


class StepProgress:
    """Counts steps, and the layers of the latest whose KV is final. The engine's thread writes, any thread reads.

    Every rank of a group counts the same steps. On a device that computes behind the caller's back, layers are only
    known to be final when the step has ended.

    Args:
        num_layers: of the model.
    """

    def __init__(self, num_layers: int) -> None:
        self._num_layers = num_layers
        self._num_settled = 0
        self._now = (0, num_layers)  # (steps begun, layers done of the latest); replaced as one, so never torn

    @property
    def num_begun(self) -> int:
        """Steps begun since the start, failed ones included; so also the number of the latest, counting from 1."""
        return self._now[0]

    def begin(self) -> None:
        """A step begins."""
        self._now = (self._now[0] + 1, 0)

    def end_layer(self) -> None:
        """The next layer has stored its KV."""
        num_begun, num_done = self._now
        self._now = (num_begun, num_done + 1)

    def end(self) -> None:
        """The step has ended, well or not: it writes nothing any more."""
        self._now = (self._now[0], self._num_layers)

    def settle(self) -> None:
        """The latest step has ended on every rank of the group; only rank 0 can know."""
        self._num_settled = self.num_begun

    def has_settled(self, step: int) -> bool:
        """Whether step number `step` writes nothing any more on any rank; on rank 0."""
        return self._num_settled >= step

    def num_final_layers(self, step: int) -> int:
        """Leading layers that step number `step` will not write any more: none before it begins, all after it."""
        num_begun, num_done = self._now
        if num_begun == step:
            return num_done
        return self._num_layers if num_begun > step else 0
