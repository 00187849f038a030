"""Which processes of this machine a running cluster's workers and routers are."""

import contextlib
from collections.abc import Iterator

import psutil
from baton.v1 import control_pb2

from core.processes import ProcessId, started_after_boot_s


def processes_of(worker: control_pb2.WorkerStatus) -> list[ProcessId]:
    """Those of all ranks of a worker."""
    return [ProcessId(rank.pid, rank.started_s) for rank in worker.hello.processes]


def listeners(port: int, root: psutil.Process) -> Iterator[ProcessId]:
    """Processes among the descendants of one that listen at a TCP port."""
    for process in root.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in process.net_connections("tcp")):
                yield ProcessId(process.pid, started_after_boot_s(process))
