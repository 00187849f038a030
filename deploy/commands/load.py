"""`baton load`: requests to any OpenAI-compatible server, and what became of them."""

import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from core.errors import ConfigError
from core.hosts import is_loopback
from deploy.bench.checks import check_writable, print_checks, write_result
from deploy.client_key import key_headers, use_key
from deploy.client_tls import http_verification
from deploy.commands.load_tables import load_checks, print_load
from deploy.commands.options import Grpc, actor_name, output_console
from deploy.flags import settings_as_flags
from deploy.run_record import RunRecord, find_cluster
from loadtest.load.faults import Fault, parse_fault
from loadtest.load.settings import LoadSettings
from loadtest.load.target import Target, parse_headers
from loadtest.workloads.settings import WorkloadSettings

if TYPE_CHECKING:
    from deploy.load.cluster_faults import ClusterFaults
    from deploy.load.load_session import LoadSession

NOT_VALID = 1  # exit code


@settings_as_flags
def load(
    url: Annotated[
        str, typer.Argument(help="Of the API, such as http://127.0.0.1:8000 or https://host/v1.", show_default=False)
    ] = "",
    *,
    sending: LoadSettings,
    workload: WorkloadSettings,
    at: Annotated[
        list[str] | None,
        typer.Option(
            help="What happens meanwhile: '30s kill decode-1', '60s flip prefill-0 [to ROLE]', stop, cont, drain, "
            "uncordon, '9s kill router'. In a cluster of this machine, or orders at --grpc. May be repeated."
        ),
    ] = None,
    grpc: Grpc = None,
    header: Annotated[
        list[str] | None, typer.Option(help="Further header of every request, 'name: value'; may be repeated.")
    ] = None,
    api_key: Annotated[
        str | None, typer.Option(help="API key to show. `ps` shows it, too: better `baton --api-key-file FILE load`.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures here.")] = None,
    records: Annotated[
        bool, typer.Option("--records", help="Write every request with the times of its events there, too.")
    ] = False,
    report: Annotated[Path | None, typer.Option(help="Write plots and figures here, as one HTML file.")] = None,
    report_from: Annotated[
        Path | None, typer.Option(help="Send nothing: make the --report of this file, which --json wrote.")
    ] = None,
) -> None:
    """Send a load to a server and measure what becomes of it; the exit status is 1 if that is not valid."""
    from deploy.load.load_session import plan_runs  # noqa: PLC0415 - slow to import, and --help is not
    from deploy.load.progress import progress_of  # noqa: PLC0415 - likewise
    from loadtest.report.report import write_report  # noqa: PLC0415 - likewise

    given = sending.given() | workload.given()
    if report_from is not None:
        if url or given or at or grpc or header or api_key or json_file or records:
            raise ConfigError("--report-from asks no server: beside it there can only be --report, where to write")
        _report_again(report_from, report)
        return
    if records and json_file is None:
        raise ConfigError("--records are written into the file of --json; give that, too")
    if api_key is not None:
        use_key(api_key)
    target, plans = Target.parse(url), plan_runs(sending, workload)
    faults = [parse_fault(text) for text in at or ()]
    session = _session(
        target,
        sending,
        workload,
        headers=key_headers() | parse_headers(header or ()),
        faults=faults,
        doer=_doer(target, faults, grpc),
        with_records=records,
    )
    check_writable("--json", json_file)
    check_writable("--report", report)
    console = Console(stderr=True, highlight=False)
    document = session.document(plans, lambda plan: progress_of(plan, console), given)
    document["checks"] = load_checks(document, sending.max_lag_ms)
    print_load(document, output_console())
    print_checks(document["checks"], output_console())
    write_result(document, json_file)
    if report is not None:
        write_report(document, report)
    if not document["valid"]:
        raise typer.Exit(NOT_VALID)


def _report_again(file: Path, report: Path | None) -> None:
    from loadtest.report.document import read_document  # noqa: PLC0415 - see `load`
    from loadtest.report.report import write_report  # noqa: PLC0415 - likewise

    if report is None:
        raise ConfigError(f"--report-from is {file}, but where to write the page is not said; give --report, too")
    document = read_document(file)
    check_writable("--report", report)
    write_report(document, report)


def _session(
    target: Target,
    sending: LoadSettings,
    workload: WorkloadSettings,
    *,
    headers: Mapping[str, str],
    faults: Sequence[Fault],
    doer: "ClusterFaults | None",
    with_records: bool,
) -> "LoadSession":
    from deploy.load.load_session import LoadSession  # noqa: PLC0415 - see `load`
    from loadtest.workloads.workload import Workload  # noqa: PLC0415 - likewise

    verify = http_verification(target.origin)
    return LoadSession(
        target=target,
        headers=headers,
        tls=verify if isinstance(verify, ssl.SSLContext) else None,
        workload=Workload.load(workload),
        model=sending.model or _first_model(target, headers),
        settings=sending,
        faults=faults,
        doer=doer,
        with_records=with_records,
    )


def _first_model(target: Target, headers: Mapping[str, str]) -> str:
    from deploy.chat_client import first_model, open_client  # noqa: PLC0415 - see `load`

    with open_client(target.origin) as client:
        client.headers.update(headers)
        return first_model(client, target.path)


def _doer(target: Target, faults: Sequence[Fault], grpc: str | None) -> "ClusterFaults | None":
    if not faults:
        if grpc is not None:
            raise ConfigError(f"--grpc is {grpc}, but it is for --at, and nothing is to happen; leave it out")
        return None
    from deploy.load.cluster_faults import ClusterFaults  # noqa: PLC0415 - see `load`

    record = _cluster_here(target) if grpc is None else None
    address = record.grpc_address if record is not None else grpc
    assert address is not None, "either a record or an address"
    doer = ClusterFaults(address, record, target.port, actor_name(None))
    doer.check(faults)
    return doer


def _cluster_here(target: Target) -> RunRecord:
    """The cluster that the load goes to: another of the same port, on this machine, must not get its faults."""
    record = find_cluster(target.port)
    if not is_loopback(target.host) and record.url != target.origin:
        raise ConfigError(
            f"--at is for the cluster at {target.origin}, but the one of this machine is at {record.url}; say with "
            "--grpc HOST:PORT whom to order"
        )
    return record
