"""Measured cost models on disk, so that a worker need not measure what one like it has measured."""

import contextlib
import json
import logging
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import xxhash

import engine as engine_package
from core.cache_dir import cache_dir
from core.cost import CostModel
from core.errors import ConfigError
from engine.engine import Engine

SOURCE_SUFFIXES = {".py", ".cpp", ".h", ".so", ".cu"}  # what decides how fast the engine computes

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CostKey:
    """Everything a measurement depends on.

    Attributes:
        fingerprint: of model and serving type.
        device: name of the processor or accelerator.
        num_threads: that a processor computes with, on each rank.
        ranks: how the model is divided, as (tensors, experts, further copies of experts).
        kernels: `native` or `torch`.
        block_tokens: tokens per KV block.
        max_model_len: most tokens of a sequence.
        num_blocks: in the pool; with the length above it decides what can be measured.
        chunk_tokens: most prompt tokens of a step.
        max_num_seqs: most decoding sequences of a step.
        code: digest of the engine's code.
        torch: its version.
    """

    fingerprint: str
    device: str
    num_threads: int
    ranks: tuple[int, int, int]
    kernels: str
    block_tokens: int
    max_model_len: int
    num_blocks: int
    chunk_tokens: int
    max_num_seqs: int
    code: str
    torch: str

    @classmethod
    def of(cls, engine: Engine, chunk_tokens: int, max_num_seqs: int) -> "CostKey":
        """The key of measurements on an engine in this process."""
        topology = engine.topology
        return cls(
            fingerprint=engine.fingerprint,
            device=device_name(engine.pool.tensor.device),
            num_threads=torch.get_num_threads(),
            ranks=(topology.tensor_parallel_size, topology.expert_parallel_size, topology.num_redundant_experts),
            kernels="torch" if engine.kernels is None else "native",
            block_tokens=engine.pool.layout.block_tokens,
            max_model_len=engine.max_model_len,
            num_blocks=engine.pool.num_blocks,
            chunk_tokens=chunk_tokens,
            max_num_seqs=max_num_seqs,
            code=code_digest(),
            torch=torch.__version__,
        )

    @property
    def path(self) -> Path:
        """The file of a measurement with this key."""
        digest = xxhash.xxh3_128_hexdigest(json.dumps(asdict(self)).encode())
        return cache_dir() / "cost" / f"{digest}.json"


def load_cost(key: CostKey) -> CostModel | None:
    """The model measured under a key, which its file is named after; None if there is none that can be read."""
    try:
        return CostModel.from_json(json.loads(key.path.read_bytes())["model"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, ConfigError) as error:
        logger.warning("%s is not used, the costs are measured anew: %r", key.path, error)
        return None


def save_cost(key: CostKey, model: CostModel) -> None:
    """Stores a model for later starts; others see the old file or the new one. A disk that fails is only logged."""
    text = json.dumps({"key": asdict(key), "model": model.to_json()}, indent=2)
    part = key.path.with_suffix(f".{os.getpid()}.part")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        part.replace(key.path)
    except OSError as error:
        logger.warning("the measured costs are not kept for the next start: %s", error)


def device_name(device: torch.device) -> str:
    """What computes, by the name its maker gave it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with contextlib.suppress(OSError):  # Linux only
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def code_digest() -> str:
    """Names the version of the engine's code: other kernels, other costs."""
    digest = xxhash.xxh3_128()
    for folder in engine_package.__path__:
        for path in sorted(Path(folder).rglob("*")):
            if path.suffix in SOURCE_SUFFIXES:
                digest.update(path.read_bytes())
    return digest.hexdigest()
