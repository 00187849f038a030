from pathlib import Path

import pytest

from core.errors import ConfigError
from deploy.bench.checks import check_writable


def test_file_that_can_be_written_is_left_as_it_is(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_text("figures", encoding="utf-8")
    for file in (old, new, None):
        check_writable("--json", file)
    assert old.read_text(encoding="utf-8") == "figures"
    assert not new.exists()


@pytest.mark.parametrize(("name", "reason"), [("", "Is a directory"), ("none/file", "No such file or directory")])
def test_file_that_cannot_be_written_is_refused_with_its_flag(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_writable("--json", tmp_path / name)
    assert caught.value.message == f"--json {tmp_path / name} cannot be written: {reason}; name another file"
