"""The `baton` command."""

import sys

import typer

from core.errors import BatonError, ConfigError, InvalidRequestError
from deploy.commands.bench import bench_app
from deploy.commands.chat import chat
from deploy.commands.down import down
from deploy.commands.drain import drain, uncordon
from deploy.commands.experts import experts
from deploy.commands.model import model_app
from deploy.commands.options import print_error
from deploy.commands.restart import restart
from deploy.commands.roles import roles_app
from deploy.commands.serve import serve
from deploy.commands.simulate import simulate
from deploy.commands.status import status
from deploy.commands.top import top

USAGE_EXIT_CODE = 2  # as typer's own for wrong flags

app = typer.Typer(
    name="baton",
    help="Disaggregated prefill/decode serving for ERNIE 4.5 mixture-of-experts models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(serve)
app.command()(status)
app.command()(top)
app.command()(experts)
app.command()(drain)
app.command()(uncordon)
app.command()(restart)
app.command()(chat)
app.command()(down)
app.command()(simulate)
app.add_typer(roles_app, name="roles")
app.add_typer(model_app, name="model")
app.add_typer(bench_app, name="bench")


def main() -> None:
    """Runs the command; an error of the tree is one line on stderr, never a trace."""
    try:
        app()
    except BatonError as error:
        print_error(error)
        sys.exit(USAGE_EXIT_CODE if isinstance(error, ConfigError | InvalidRequestError) else 1)
