"""Compiles the native kernels with the machine's own compiler, once per version of sources, flags and compiler.

The library is plain C++ behind a C interface, without torch's headers, so that it takes seconds to compile and does
not depend on torch's version. It shares torch's OpenMP runtime: both link `libgomp.so.1`, which a process loads once.
"""

import hashlib
import logging
import platform
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from filelock import FileLock

from core.cache_dir import cache_dir

SOURCE_DIR = Path(__file__).parent / "src"
COMPILER = "g++"  # clang++ would bring another OpenMP runtime, whose threads fight torch's for the cores
INSTRUCTIONS = ("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512bf16", "amx-tile", "amx-bf16", "fma")
FLAGS = [
    "-O3",
    "-std=c++17",
    "-shared",
    "-fPIC",
    "-fopenmp",
    "-fvisibility=hidden",
    "-ffp-contract=off",  # or two kernels that do the same might be rounded differently
    *(f"-m{i}" for i in INSTRUCTIONS),
]
CPU_FEATURES = frozenset({"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_bf16", "amx_tile", "amx_bf16"})
COMPILE_TIMEOUT_S = 300.0

logger = logging.getLogger(__name__)


class KernelsUnavailableError(Exception):
    """The native kernels cannot be had on this machine; the message says why and what would help."""


def build_library() -> Path:
    """The compiled library, from the cache if it is there.

    They are kept in `kernels` in Baton's cache. Processes that start together compile once: the others wait.

    Raises:
        KernelsUnavailableError: the CPU lacks an instruction set, or there is no working compiler.
    """
    _check_cpu()
    compiler = shutil.which(COMPILER)
    if compiler is None:
        raise KernelsUnavailableError(f"{COMPILER} is not installed; apt-get install {COMPILER}")
    path = cache_dir() / "kernels" / f"{_digest(compiler)}.so"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock"), timeout=2 * COMPILE_TIMEOUT_S):
        if not path.exists():
            _compile(compiler, path)
    return path


def _check_cpu() -> None:
    missing = CPU_FEATURES - _cpu_features()
    if missing:
        raise KernelsUnavailableError(f"the CPU has no {', '.join(sorted(missing))}")


def _cpu_features() -> set[str]:
    if platform.machine() != "x86_64":
        return set()
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return set(next((line.partition(":")[2] for line in lines if line.startswith("flags")), "").split())


def _digest(compiler: str) -> str:
    digest = hashlib.sha256(" ".join(FLAGS).encode())
    digest.update(run([compiler, "--version"]).encode())
    for source in sorted(SOURCE_DIR.iterdir()):
        digest.update(source.name.encode() + source.read_bytes())
    return digest.hexdigest()[:16]


def _compile(compiler: str, path: Path) -> None:
    started_s = time.monotonic()
    sources = [str(source) for source in sorted(SOURCE_DIR.glob("*.cpp"))]
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        library = Path(folder) / path.name
        command = [compiler, *FLAGS, "-o", str(library), *sources]
        run(command)
        library.rename(path)
    logger.info("compiled the CPU kernels in %.1f s, kept as %s", time.monotonic() - started_s, path)


def run(command: list[str]) -> str:
    """Output of the compiler; raises `KernelsUnavailableError` with its first error if it fails."""
    try:
        finished = subprocess.run(  # noqa: S603 - the machine's compiler, our own sources
            command, capture_output=True, text=True, check=True, timeout=COMPILE_TIMEOUT_S
        )
    except subprocess.CalledProcessError as error:
        lines = [line for line in error.stderr.splitlines() if "error" in line] or ["no message"]
        raise KernelsUnavailableError(f"{COMPILER} could not compile the kernels: {lines[0]}") from error
    except subprocess.TimeoutExpired as error:
        raise KernelsUnavailableError(f"{COMPILER} took over {COMPILE_TIMEOUT_S:g} s for the kernels") from error
    return finished.stdout
