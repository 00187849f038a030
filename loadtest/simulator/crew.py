"""The workers of a simulated fleet that live, by name and by role. What they do is theirs."""

from collections.abc import Sequence

from core.ids import WorkerId
from core.request import Role
from loadtest.simulator.agenda import Agenda
from loadtest.simulator.observer import WorkerObserver
from loadtest.simulator.prefixes import Prefixes
from loadtest.simulator.spec import FleetSpec
from loadtest.simulator.worker import SimWorker


class Crew:
    """Starts with one process of each worker.

    Args:
        spec: of the fleet.
        roles: of the workers at the start.
        agenda: the clock.
        observer: of all workers.

    Attributes:
        workers: ordered by name.
        prefill_workers: those that get prompts.
        decode_workers: those that get sequences.
        prefixes: who has which beginning of a prompt.
        changed: workers of which placement would see something else than when this was cleared last.
        past_busy_s: time that the steps of workers took which have died.
    """

    def __init__(self, spec: FleetSpec, roles: Sequence[Role], agenda: Agenda, observer: WorkerObserver) -> None:
        assert len(roles) == spec.num_workers, f"{len(roles)} roles for {spec.num_workers} workers"
        self._spec = spec
        self._agenda = agenda
        self._observer = observer
        self._by_name: dict[str, SimWorker] = {}
        self.changed: dict[SimWorker, None] = {}
        self.prefixes = Prefixes(spec.worker.prefix_block_tokens)
        self.past_busy_s = 0.0
        width = len(str(spec.num_workers - 1))
        for number, role in enumerate(roles):
            self._add(WorkerId(f"worker-{number:0{width}}", 1), number, role)
        self.regroup()

    def named(self, name: str) -> SimWorker | None:
        """The living process of a worker; None while it has none."""
        return self._by_name.get(name)

    def bury(self, worker: SimWorker) -> None:
        """A process has died."""
        worker.kill()
        self.changed[worker] = None
        self.past_busy_s += worker.busy_s
        del self._by_name[worker.id.name]
        self.prefixes.forget(worker)
        self.regroup()

    def succeed(self, dead: SimWorker) -> None:
        """Another process of a dead worker takes work, in the role it had."""
        self._add(WorkerId(dead.id.name, dead.id.incarnation + 1), dead.number, dead.role)
        self.regroup()

    def regroup(self) -> None:
        """A role has changed."""
        self.workers = sorted(self._by_name.values(), key=lambda worker: worker.number)
        self.prefill_workers = [worker for worker in self.workers if worker.role.serves(Role.PREFILL)]
        self.decode_workers = [worker for worker in self.workers if worker.role.serves(Role.DECODE)]

    def _add(self, worker_id: WorkerId, number: int, role: Role) -> None:
        worker = SimWorker(
            worker_id,
            number,
            self._spec.worker,
            role,
            agenda=self._agenda,
            observer=self._observer,
            changed=self.changed,
        )
        self._by_name[worker_id.name] = worker
        self.changed[worker] = None
        self.prefixes.attach(worker)
