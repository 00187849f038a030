"""What this machine offers, whatever is to run on it. Every check looks at one thing and changes nothing."""

import resource
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement

from core.versions import PACKAGES, installed_versions
from deploy.doctor.finding import Finding, fail, ok, warn
from deploy.ray_session import OBJECT_STORE_BYTES

HERE = "this machine"
MIN_PYTHON = (3, 11)
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Ray's object store is, and torch's and UCX's segments
# Ray's store, and room for the segments of a few workers; Docker gives containers 64 MiB unless told otherwise.
MIN_SHARED_BYTES = 2 * OBJECT_STORE_BYTES
MIN_OPEN_FILES = 4096  # a stream of a client is one, and Ray alone has hundreds
PTRACE_SCOPE = Path("/proc/sys/kernel/yama/ptrace_scope")
MIB, GIB = 1 << 20, 1 << 30


def machine_findings() -> Iterator[Finding]:
    """All checks of this machine."""
    yield python_finding()
    yield from version_findings()
    yield shared_memory_finding(shutil.disk_usage(SHARED_MEMORY).total if SHARED_MEMORY.is_dir() else 0)
    yield open_files_finding(*resource.getrlimit(resource.RLIMIT_NOFILE))
    yield memory_copy_finding(PTRACE_SCOPE.read_text().strip() if PTRACE_SCOPE.exists() else "0")


def python_finding() -> Finding:
    """Python itself."""
    found = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info < MIN_PYTHON:
        wanted = ".".join(str(part) for part in MIN_PYTHON)
        return fail("python", HERE, found, f"install Python {wanted} or newer")
    return ok("python", HERE, found)


def version_findings() -> Iterator[Finding]:
    """Packages beside the ranges that Baton was tested with."""
    installed = installed_versions()
    wanted = {
        requirement.name: requirement
        for requirement in map(Requirement, requires("baton") or ())
        if requirement.name in PACKAGES
    }
    for name, requirement in wanted.items():
        found = installed.get(name)
        remedy = f'pip install "{name}{requirement.specifier}"'
        if found is None:
            yield fail("version", name, "not installed", remedy)
        elif not requirement.specifier.contains(found, prereleases=True):
            yield warn("version", name, f"{found}; tested with {requirement.specifier}", remedy)
        else:
            yield ok("version", name, found)


def shared_memory_finding(total_bytes: int) -> Finding:
    """Room in `/dev/shm`."""
    detail = f"{SHARED_MEMORY} has {total_bytes / MIB:.0f} MiB"
    if total_bytes < MIN_SHARED_BYTES:
        return fail(
            "shared memory",
            HERE,
            detail,
            f"give it at least {MIN_SHARED_BYTES / MIB:.0f} MiB: `docker run --shm-size=1g`, or an emptyDir of "
            "medium Memory at /dev/shm in Kubernetes",
        )
    return ok("shared memory", HERE, detail)


def open_files_finding(soft: int, hard: int) -> Finding:
    """Files and sockets that a process may have open."""
    detail = f"{soft} per process (at most {hard})"
    if soft != resource.RLIM_INFINITY and soft < MIN_OPEN_FILES:
        return warn("open files", HERE, detail, f"`ulimit -n {MIN_OPEN_FILES}` or more before `baton serve`")
    return ok("open files", HERE, detail)


def memory_copy_finding(ptrace_scope: str) -> Finding:
    """Whether KV can be copied from process to process on this machine."""
    if ptrace_scope in ("2", "3"):
        return warn(
            "memory copy",
            HERE,
            f"ptrace_scope is {ptrace_scope}: workers may not read each other's memory, and KV takes TCP",
            "`sysctl kernel.yama.ptrace_scope=1`, and in containers `--cap-add=SYS_PTRACE`",
        )
    return ok("memory copy", HERE, f"ptrace_scope is {ptrace_scope}")
