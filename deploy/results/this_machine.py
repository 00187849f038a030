"""The machine that figures are measured on, in words for a reader on another one. No names, no addresses."""

import os
import platform
from pathlib import Path

import psutil

CPU_FILE = Path("/proc/cpuinfo")
GIB = 1 << 30
# What changes figures by more than a little, as Linux spells it.
TELLING_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


def describe_machine() -> str:
    """Processor, cores that may be used, memory, kernel and Python."""
    facts = _cpu_facts()
    flags = facts.get("flags", "").split()
    telling = ", ".join(flag for flag in TELLING_FLAGS if flag in flags)
    is_virtual = "virtual machine" if "hypervisor" in flags else "machine"
    num_cores = len(os.sched_getaffinity(0))
    memory_gib = psutil.virtual_memory().total / GIB
    cores = "core" if num_cores == 1 else "cores"
    parts = (
        f"{is_virtual} with {num_cores} {cores} of {facts.get('model name', platform.machine())}",
        telling,
        f"{memory_gib:.0f} GiB",
        f"Linux {platform.release().split('-')[0]}",
        f"Python {platform.python_version()}",
    )
    return ", ".join(part for part in parts if part)


def _cpu_facts() -> dict[str, str]:
    """What Linux says of the first core; nothing elsewhere."""
    if not CPU_FILE.is_file():
        return {}
    lines = CPU_FILE.read_text(encoding="utf-8").split("\n\n", 1)[0].splitlines()
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
