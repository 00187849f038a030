"""Carries out the faults of a load in a running cluster: signals to processes here, orders to its router."""

import contextlib
from collections.abc import Callable, Iterable, Sequence

import psutil
from baton.v1 import common_pb2, control_pb2

from core.errors import BatonError, ConfigError, UnavailableError
from core.processes import ProcessId
from core.request import HALVES, Role
from deploy import roles_client
from deploy.cluster_processes import listeners, processes_of
from deploy.load.daemon_call import call_in_daemon
from deploy.processes import kill_processes
from deploy.proto_dict import enum_word
from deploy.roles_client import Progress
from deploy.run_record import RunRecord
from deploy.status_client import get_status
from loadtest.load.faults import ROUTER, Deed, Fault

IN_ROLE = (control_pb2.ROLE_STAGE_CHANGED, control_pb2.ROLE_STAGE_VERIFIED)


class ClusterFaults:
    """Implements `loadtest.load.faults.FaultDoer`.

    Args:
        grpc_address: of the routers' gRPC services.
        record: of the cluster, if it runs on this machine; else None, and its routers cannot be found.
        http_port: of its routers.
        actor: who orders roles and drains, for the audit log.
    """

    def __init__(self, grpc_address: str, record: RunRecord | None, http_port: int, actor: str) -> None:
        self._grpc_address = grpc_address
        self._record = record
        self._http_port = http_port
        self._actor = actor
        self._stopped: dict[str, Sequence[ProcessId]] = {}

    def check(self, faults: Iterable[Fault]) -> None:
        """Makes sure that all faults concern workers and routers that there are.

        Raises:
            ConfigError: one does not; names those that there are.
            BatonError: the router does not say.
        """
        workers = [worker.hello.endpoint.worker.name for worker in get_status(self._grpc_address).workers]
        for fault in faults:
            if fault.name == ROUTER:
                self._routers()
            elif fault.name not in workers:
                raise ConfigError(f"--at: no worker is called {fault.name!r}; there are {', '.join(workers)}")

    async def do(self, fault: Fault) -> str:
        """See `FaultDoer`."""
        return await call_in_daemon(lambda: self._do(fault))

    def _do(self, fault: Fault) -> str:
        match fault.deed:
            case Deed.FLIP:
                return self._flip(fault.name, fault.role)
            case Deed.DRAIN:
                return _message(roles_client.drain_worker(self._grpc_address, fault.name, self._actor), ())
            case Deed.UNCORDON:
                roles_client.uncordon_worker(self._grpc_address, fault.name, self._actor)
                return f"{fault.name} has work again"
        return self._signal(fault.deed, fault.name)

    def _signal(self, deed: Deed, name: str) -> str:
        processes = self._processes(name)
        if deed is Deed.KILL:
            is_done = kill_processes(processes)
        elif deed is Deed.STOP:
            self._stopped[name] = processes
            is_done = _for_each(processes, psutil.Process.suspend)
        else:
            is_done = _for_each(processes, psutil.Process.resume)
        pids = ", ".join(str(process.pid) for process in processes)
        if not is_done:
            raise UnavailableError(f"not all processes of {name} ({pids}) could be reached on this machine")
        return f"{deed}: process {pids}"

    def _processes(self, name: str) -> Sequence[ProcessId]:
        """Those of now; of what is not there now, for it was stopped, those of then."""
        try:
            found = self._routers()[:1] if name == ROUTER else processes_of(self._worker(name))
        except BatonError:
            if name not in self._stopped:
                raise
            return self._stopped[name]
        if not found:
            raise UnavailableError(f"nobody has said which processes {name} has")
        return found

    def _routers(self) -> list[ProcessId]:
        root = None if self._record is None else self._record.process()
        if root is None:
            raise ConfigError("--at ... router needs a cluster that `baton serve` runs on this machine")
        try:
            found = sorted(listeners(self._http_port, root), key=lambda process: process.started_s)
        except psutil.NoSuchProcess as error:
            raise UnavailableError("the cluster has ended") from error
        if not found:
            raise UnavailableError(f"no router listens at port {self._http_port}")
        return found

    def _worker(self, name: str) -> control_pb2.WorkerStatus:
        for worker in get_status(self._grpc_address).workers:
            if worker.hello.endpoint.worker.name == name:
                return worker
        raise UnavailableError(f"{name} is not attached now")

    def _flip(self, name: str, role: Role | None) -> str:
        wanted = self._other_half(name) if role is None else role
        return _message(roles_client.set_role(self._grpc_address, name, wanted, self._actor), IN_ROLE)

    def _other_half(self, name: str) -> Role:
        for worker in roles_client.get_roles(self._grpc_address).workers:
            if worker.worker.name == name:
                role = Role(enum_word(common_pb2.Role.DESCRIPTOR, worker.state.role))
                if role not in HALVES:
                    raise UnavailableError(f"{name} is {role}; say which role it is to have: 'flip {name} to ROLE'")
                return HALVES[1 - HALVES.index(role)]
        raise UnavailableError(f"{name} is not attached now")


def _message(progress: Progress, stages: Sequence[int]) -> str:
    """What is said of an order when it has reached one of these stages, or at once where there are none."""
    with contextlib.closing(progress):
        for step in progress:
            if step.stage == control_pb2.ROLE_STAGE_FAILED:
                raise UnavailableError(step.message or f"{step.worker} did not do it")
            if not stages or step.stage in stages:
                break
    return str(step.message)


def _for_each(processes: Iterable[ProcessId], act: Callable[[psutil.Process], None]) -> bool:
    """Acts on processes; whether all of them could be found and reached."""
    is_done = True
    for name in processes:
        process = name.find()
        try:
            if process is not None:
                act(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            process = None
        is_done = is_done and process is not None
    return is_done
