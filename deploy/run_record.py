"""A file per running cluster, so that other commands find it: who runs it and where it listens."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from core.errors import ConfigError, UnavailableError


def runs_dir() -> Path:
    """Where the records are; `XDG_CACHE_HOME` is respected."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "baton" / "clusters"


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One running `baton serve`.

    Attributes:
        pid: of the process.
        started_s: when it started, seconds since the epoch; with the pid it names one process for certain.
        url: of the HTTP API.
        grpc_address: `host:port` of the gRPC services.
        model: served model name.
        log_dir: folder of the processes' logs.
    """

    pid: int
    started_s: float
    url: str
    grpc_address: str
    model: str
    log_dir: str

    @property
    def path(self) -> Path:
        """The record's file."""
        return runs_dir() / f"{self.pid}.json"

    def process(self) -> psutil.Process | None:
        """The process, if it is still that one and runs."""
        try:
            process = psutil.Process(self.pid)
            is_same = process.create_time() == self.started_s and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return None
        return process if is_same else None

    def write(self) -> None:
        """Makes the cluster known."""
        runs_dir().mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(self)), encoding="utf-8")
        partial.replace(self.path)

    def remove(self) -> None:
        """Makes it unknown. Idempotent."""
        self.path.unlink(missing_ok=True)


def record_of_this_process(*, url: str, grpc_address: str, model: str, log_dir: str) -> RunRecord:
    """A record of the calling process."""
    process = psutil.Process()
    return RunRecord(process.pid, process.create_time(), url, grpc_address, model, log_dir)


def running_clusters() -> list[RunRecord]:
    """Clusters that run now, the newest last; records of dead ones are removed."""
    records = []
    for path in sorted(runs_dir().glob("*.json")) if runs_dir().is_dir() else []:
        try:
            record = RunRecord(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError):
            path.unlink(missing_ok=True)
            continue
        if record.process() is None:
            record.remove()
        else:
            records.append(record)
    return sorted(records, key=lambda record: record.started_s)


def find_cluster(port: int | None) -> RunRecord:
    """The running cluster at an HTTP port, or the only one.

    Raises:
        UnavailableError: none runs, or none at that port.
        ConfigError: several run and no port was given.
    """
    records = running_clusters()
    if port is not None:
        records = [record for record in records if record.url.endswith(f":{port}")]
    if not records:
        where = "" if port is None else f" at port {port}"
        raise UnavailableError(f"no cluster runs{where} on this machine; start one with `baton serve`")
    if len(records) > 1:
        urls = ", ".join(record.url for record in records)
        raise ConfigError(f"several clusters run ({urls}); choose one with --port")
    return records[0]
