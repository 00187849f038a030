"""The `baton` command."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from core.errors import BatonError, ConfigError, InvalidRequestError
from deploy.client_key import API_KEY_VARIABLE, use_key_file
from deploy.client_tls import CA_VARIABLE, CERT_VARIABLE, KEY_VARIABLE
from deploy.commands.bench import bench_app
from deploy.commands.certs import certs
from deploy.commands.chat import chat
from deploy.commands.doctor import doctor_app
from deploy.commands.down import down
from deploy.commands.drain import drain, uncordon
from deploy.commands.experts import experts
from deploy.commands.keys import keys_app
from deploy.commands.load import load
from deploy.commands.model import model_app
from deploy.commands.options import print_error
from deploy.commands.plan import plan
from deploy.commands.restart import restart
from deploy.commands.results import results_app
from deploy.commands.roles import roles_app
from deploy.commands.serve import serve
from deploy.commands.simulate import simulate
from deploy.commands.status import status
from deploy.commands.top import top

USAGE_EXIT_CODE = 2  # as typer's own for wrong flags

app = typer.Typer(
    name="baton",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def reach(
    *,
    api_key_file: Annotated[
        Path | None,
        typer.Option(help=f"File whose first line is the API key to show to a router. Default: {API_KEY_VARIABLE}."),
    ] = None,
    ca_file: Annotated[
        Path | None,
        typer.Option(
            help=f"CA certificates to know a router's by, for TLS. Default: {CA_VARIABLE}, or as noted by `serve`."
        ),
    ] = None,
    cert_file: Annotated[
        Path | None,
        typer.Option(help=f"Certificate to show to a router that asks for one. Default: {CERT_VARIABLE}."),
    ] = None,
    key_file: Annotated[Path | None, typer.Option(help=f"Private key of it. Default: {KEY_VARIABLE}.")] = None,
) -> None:
    """Disaggregated prefill/decode serving for ERNIE 4.5 mixture-of-experts models."""
    if api_key_file is not None:
        use_key_file(api_key_file)
    for variable, path in ((CA_VARIABLE, ca_file), (CERT_VARIABLE, cert_file), (KEY_VARIABLE, key_file)):
        if path is not None:
            os.environ[variable] = str(path)  # where everything looks that calls a router


app.command()(serve)
app.command()(certs)
app.command()(status)
app.command()(top)
app.command()(experts)
app.command()(drain)
app.command()(uncordon)
app.command()(restart)
app.command()(chat)
app.command()(down)
app.command()(load)
app.command()(simulate)
app.command()(plan)
app.add_typer(roles_app, name="roles")
app.add_typer(keys_app, name="keys")
app.add_typer(doctor_app, name="doctor")
app.add_typer(model_app, name="model")
app.add_typer(bench_app, name="bench")
app.add_typer(results_app, name="results")


def main() -> None:
    """Runs the command; an error of the tree is one line on stderr, never a trace."""
    try:
        app()
    except BatonError as error:
        print_error(error)
        sys.exit(USAGE_EXIT_CODE if isinstance(error, ConfigError | InvalidRequestError) else 1)
