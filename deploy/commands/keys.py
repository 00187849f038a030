"""`baton keys`: makes, lists and revokes API keys, in a file that routers follow without a restart."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from core.errors import ConfigError
from deploy.commands.options import output_console
from router.auth.api_key import NAME_PATTERN, ApiKey, digest_of, new_key
from router.auth.caller import Scope
from router.auth.key_file import changing_keys, load_keys

COLUMNS = ("name", "id", "tenant", "scopes", "requests/min", "tokens/min", "at once", "made")
NO_LIMIT = "-"

KeyFile = Annotated[Path, typer.Option("--file", envvar="BATON_API_KEYS_FILE", help="Where the keys are kept.")]
KeyName = Annotated[str, typer.Argument(help="What the key is called: letters, digits, dots, hyphens, underscores.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Default: no limit.")]

DEFAULT_FILE = Path("api-keys.json")

keys_app = typer.Typer(help="Make, list and revoke API keys.", no_args_is_help=True)


@keys_app.command("create")
def create(
    name: KeyName,
    *,
    scope: Annotated[
        list[Scope] | None, typer.Option(help="What it is good for; may be given twice. Default: chat.")
    ] = None,
    tenant: Annotated[
        str | None, typer.Option(help="Whose requests are made with it. Default: a tenant of the key's name.")
    ] = None,
    requests_per_minute: Limit = None,
    tokens_per_minute: Limit = None,
    max_concurrent: Limit = None,
    file: KeyFile = DEFAULT_FILE,
) -> None:
    """Make a key and print it, once: what is kept of it is a hash."""
    key = new_key()
    record = ApiKey(
        name=check_name(name, "NAME"),
        tenant=name if tenant is None else check_name(tenant, "--tenant"),
        scopes=frozenset(scope or [Scope.CHAT]),
        sha256=digest_of(key),
        created_at=datetime.now(UTC).replace(microsecond=0),
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        max_concurrent=max_concurrent,
    )
    with changing_keys(file) as keys:
        if any(known.name == name for known in keys):
            raise ConfigError(f"there is a key {name} in {file} already; revoke it, or choose another name")
        keys.append(record)
    typer.echo(key)
    Console(stderr=True, highlight=False).print(f"This is shown only now. {file} knows it by its hash.", style="dim")


def check_name(name: str, what: str) -> str:
    """A name as it is.

    Raises:
        ConfigError: it has other characters, or too many.
    """
    if not re.fullmatch(NAME_PATTERN, name):
        raise ConfigError(
            f"{what} is {name!r}; it must be 1 to 64 letters, digits, dots, hyphens and underscores, and begin with "
            "a letter or digit"
        )
    return name


@keys_app.command("list")
def list_keys(*, file: KeyFile = DEFAULT_FILE) -> None:
    """List the keys, which are not shown themselves."""
    table = Table(*COLUMNS, box=None, header_style="dim")
    for key in load_keys(file):
        limits = (key.requests_per_minute, key.tokens_per_minute, key.max_concurrent)
        table.add_row(
            key.name,
            key.key_id,
            key.tenant,
            ", ".join(sorted(key.scopes)),
            *(NO_LIMIT if limit is None else f"{limit:,}" for limit in limits),
            f"{key.created_at:%Y-%m-%d %H:%M}",
        )
    output_console().print(table)


@keys_app.command("revoke")
def revoke(name: KeyName, *, file: KeyFile = DEFAULT_FILE) -> None:
    """Make a key good for nothing, within a second and without a restart. Answers under way go on."""
    with changing_keys(file) as keys:
        left = [key for key in keys if key.name != name]
        if len(left) == len(keys):
            raise ConfigError(
                f"there is no key {name} in {file}; `baton keys list --file {file}` shows those there are"
            )
        keys[:] = left
    typer.echo(f"{name} is revoked")
