import io
from pathlib import Path

import pytest
from rich.console import Console

from deploy.commands.serve import print_exposure
from deploy.config import ServeConfig
from tests.router.auth.keys import add_key


@pytest.mark.parametrize(
    ("host", "has_keys", "is_said"),
    [
        ("127.0.0.1", False, False),
        ("localhost", False, False),
        ("0.0.0.0", False, True),  # noqa: S104 - nothing is bound here
        ("10.0.0.1", False, True),
        ("0.0.0.0", True, False),  # noqa: S104 - likewise
    ],
)
def test_cluster_that_anyone_can_use_says_so_in_one_line(
    tmp_path: Path, host: str, has_keys: bool, is_said: bool
) -> None:
    file = tmp_path / "keys.json"
    add_key(file, "alice")
    console = Console(file=io.StringIO())
    print_exposure(ServeConfig(host=host, api_keys_file=file if has_keys else None), console)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert said.count("\n") == is_said
    assert said.startswith(f"anyone who reaches {host} can use this cluster") == is_said
