"""A file per running cluster, so that other commands find it: who runs it and where it listens."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import psutil

from core.cache_dir import cache_dir
from core.errors import ConfigError, UnavailableError
from core.processes import ProcessId, this_process
from rpc.security import TlsFiles


def runs_dir() -> Path:
    """Where the records are."""
    return cache_dir() / "clusters"


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One running `baton serve`.

    Attributes:
        pid: of the process.
        started_s: when it started, seconds after boot; with the pid it names one process for certain.
        url: of the HTTP API.
        grpc_address: `host:port` of the gRPC services.
        model: served model name.
        log_dir: folder of the processes' logs.
        ca_file: of the ports' certificate; empty trusts whom the system trusts. Paths only, no contents.
        cert_file: what commands show where clients must show a certificate; empty for none.
        key_file: of that certificate.
        drain_timeout_s: seconds that requests under way have when it is stopped.
    """

    pid: int
    started_s: float
    url: str
    grpc_address: str
    model: str
    log_dir: str
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    drain_timeout_s: float = 0.0

    @property
    def is_tls(self) -> bool:
        """Whether the ports speak TLS."""
        return self.url.startswith("https://")

    @property
    def tls(self) -> TlsFiles:
        """What commands reach the ports with, if they speak TLS."""
        return TlsFiles(*(Path(name) if name else None for name in (self.cert_file, self.key_file, self.ca_file)))

    @property
    def path(self) -> Path:
        """The record's file."""
        return runs_dir() / f"{self.pid}.json"

    def process(self) -> psutil.Process | None:
        """The process, if it is still that one and runs."""
        return ProcessId(self.pid, self.started_s).find()

    def write(self) -> None:
        """Makes the cluster known."""
        runs_dir().mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(self)), encoding="utf-8")
        partial.replace(self.path)

    def remove(self) -> None:
        """Makes it unknown. Idempotent."""
        self.path.unlink(missing_ok=True)


def record_of_this_process(
    *,
    url: str,
    grpc_address: str,
    model: str,
    log_dir: str,
    tls: TlsFiles | None = None,
    drain_timeout_s: float = 0.0,
) -> RunRecord:
    """A record of the calling process. The paths of its files are absolute: commands run in other folders."""
    me = this_process()
    files = TlsFiles() if tls is None else tls
    ca_file, cert_file, key_file = ("" if path is None else str(path) for path in (files.ca, files.cert, files.key))
    return RunRecord(
        me.pid, me.started_s, url, grpc_address, model, log_dir, ca_file, cert_file, key_file, drain_timeout_s
    )


def record_from_json(values: dict[str, Any]) -> RunRecord:
    """A record as this version knows it: one of a newer version may say more.

    Raises:
        TypeError: something is missing.
    """
    known = {field.name for field in fields(RunRecord)}
    return RunRecord(**{name: value for name, value in values.items() if name in known})


def running_clusters() -> list[RunRecord]:
    """Clusters that run now, the newest last; records of dead ones are removed."""
    records = []
    for path in sorted(runs_dir().glob("*.json")) if runs_dir().is_dir() else []:
        try:
            record = record_from_json(json.loads(path.read_text(encoding="utf-8")))
            is_running = record.process() is not None
        except FileNotFoundError:
            continue  # removed by its cluster meanwhile
        except (ValueError, TypeError, AttributeError):
            is_running = False
        if is_running:
            records.append(record)
        else:
            path.unlink(missing_ok=True)
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
