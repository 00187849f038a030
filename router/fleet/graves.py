"""Which processes of workers are known to be dead. Not why, and not who is silent: that is `router.fleet.pulse`."""

from collections import OrderedDict
from collections.abc import Iterator

from core.ids import WorkerId

MAX_NAMES = 4096  # far more than names of workers that come while a block anywhere is still in quarantine for them


class Graves:
    """The latest dead incarnation of each name; all before it are dead, too. The oldest entries are dropped."""

    def __init__(self) -> None:
        self._dead: OrderedDict[str, WorkerId] = OrderedDict()

    def __contains__(self, worker: WorkerId) -> bool:
        return (dead := self._dead.get(worker.name)) is not None and dead.outlasts(worker)

    def __iter__(self) -> Iterator[WorkerId]:
        return iter(tuple(self._dead.values()))

    def add(self, worker: WorkerId) -> bool:
        """A process is dead, and those before it; whether that is news."""
        if worker in self:
            return False
        self._dead[worker.name] = worker
        self._dead.move_to_end(worker.name)
        if len(self._dead) > MAX_NAMES:
            self._dead.popitem(last=False)
        return True
