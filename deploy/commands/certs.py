"""`baton certs`: a certificate authority and a certificate, for tests and small clusters."""

import socket
from pathlib import Path
from typing import Annotated

import typer

from core.errors import ConfigError

LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
MAX_DAYS = 3650


def certs(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write to.")],
    *,
    host: Annotated[
        list[str] | None,
        typer.Option(
            "--host",
            help="Name or address that servers are reached at; may be repeated. This machine's "
            "name and loopback are always there.",
        ),
    ] = None,
    ca_dir: Annotated[
        Path | None,
        typer.Option("--ca-dir", help="Folder of an earlier call, whose CA is to sign. Default: a new CA."),
    ] = None,
    days: Annotated[int, typer.Option(help="How long they are valid.")] = 365,
) -> None:
    """Make ca.pem, cert.pem and key.pem, and ca-key.pem for a new CA, as --cluster-tls-dir wants them."""
    from deploy.certificate_maker import write_certificates  # noqa: PLC0415 - slow to import; no other command waits

    if not 1 <= days <= MAX_DAYS:
        raise ConfigError(f"--days is {days}; it must be from 1 to {MAX_DAYS}")
    hosts = list(dict.fromkeys((*(host or ()), socket.gethostname(), *LOCAL_HOSTS)))
    write_certificates(directory, hosts, days, ca_dir)
    typer.echo(f"wrote a certificate for {', '.join(hosts)} to {directory}")
    if ca_dir is None:
        typer.echo(f"{directory / 'ca-key.pem'} can issue further ones; no process of the cluster needs it")
