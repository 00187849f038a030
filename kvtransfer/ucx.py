"""UCX, which carries NIXL's bytes: what it is told before it starts, and which way it will take to a peer.

UCX does not say which way it takes. Here that is worked out from what it goes by; see
https://openucx.readthedocs.io/en/master/faq.html.
"""

import ctypes
import os
from dataclasses import dataclass
from pathlib import Path

import xxhash

from core.errors import ConfigError
from core.hosts import is_loopback

SOCKET_BUFFER_BYTES = 4 << 20
# Measured between two processes on loopback that sleep 0.5 ms between polls, beside UCX's own defaults. Both ends
# must agree on the segment sizes, so none of these is set where the user has set any UCX_TCP_ variable.
TCP_SETTINGS = {
    # A socket is read again while it is full, at most so often (16) before the poll returns and the reader sleeps:
    # WRITE 3-13 % faster.
    "UCX_TCP_MAX_POLL": "1024",
    # Segments that are copied once more; a READ consists of them, a WRITE begins with one. Sent in 16 KiB, not 8,
    # READ is 15-17 % faster; received in 16 KiB, not 64, WRITE of 64 KiB is 13 % faster.
    "UCX_TCP_TX_SEG_SIZE": "16k",
    "UCX_TCP_RX_SEG_SIZE": "16k",
}
# What goes out while the other end sleeps; WRITE up to 20 % faster than with buffers that the kernel sizes.
SOCKET_BUFFERS = {"UCX_TCP_SNDBUF": "wmem_max", "UCX_TCP_RCVBUF": "rmem_max"}

LOOPBACK_DEVICE = "lo"

CMA = frozenset({"all", "cma", "sm", "shm"})
RDMA = (
    frozenset({"all", "ib", "rc", "rc_v", "rc_x", "rc_verbs", "rc_mlx5"}),
    frozenset({"all", "ib", "ud", "ud_v", "ud_x", "ud_verbs", "ud_mlx5"}),
    frozenset({"all", "ib", "dc", "dc_x", "dc_mlx5"}),
)
TCP = frozenset({"all", "tcp"})


@dataclass(frozen=True, slots=True)
class UcxEnd:
    """What decides, at one end of a pair, which way its bytes go.

    Attributes:
        host: equal for processes that may see each other's memory; 16 bytes.
        pid: of the process.
        probe_address: of a byte in the process's ordinary memory.
        allows_cma: whether UCX_TLS lets the ends copy between their memories.
        allows_rdma: whether UCX_TLS allows InfiniBand or RoCE, and there is a device.
    """

    host: bytes
    pid: int
    probe_address: int
    allows_cma: bool
    allows_rdma: bool

    @classmethod
    def of_this_process(cls, probe_address: int) -> "UcxEnd":
        """This process, with the environment as it is now."""
        tls = os.environ.get("UCX_TLS")
        return cls(
            host_identity(),
            os.getpid(),
            probe_address,
            allows_cma=is_allowed(tls, CMA),
            allows_rdma=has_rdma_device() and any(is_allowed(tls, names) for names in RDMA),
        )


def check_ucx_tls(tls: str) -> None:
    """Makes sure that every peer can be reached with a value of UCX_TLS.

    Raises:
        ConfigError: it leaves no way to a peer that cannot be reached by anything faster.
    """
    if not is_allowed(tls, TCP):
        raise ConfigError(f"UCX_TLS is {tls!r}; it must contain 'tcp', which connects all others, or 'all'")


def configure_ucx(tls: str | None, host: str) -> None:
    """Sets the environment that UCX reads when the process's first NIXL agent is made; call it before that.

    Args:
        tls: UCX_TLS, the transports that UCX may use; None leaves it as it is.
        host: where peers reach this process. UCX listens at every interface by itself; where all peers come over
            loopback, only there. Elsewhere UCX_NET_DEVICES says where: it names RDMA devices, too.

    Raises:
        ConfigError: see `check_ucx_tls`.
    """
    tls = os.environ.get("UCX_TLS") if tls is None else tls
    if tls is not None:
        check_ucx_tls(tls)
        os.environ["UCX_TLS"] = tls
    if is_loopback(host):
        os.environ.setdefault("UCX_NET_DEVICES", LOOPBACK_DEVICE)
    if not any(name.startswith("UCX_TCP_") for name in os.environ):
        os.environ.update(TCP_SETTINGS)
        os.environ.update({name: f"{SOCKET_BUFFER_BYTES}" for name, limit in SOCKET_BUFFERS.items() if _fits(limit)})


def path_between(mine: UcxEnd, theirs: UcxEnd, *, is_host_memory: bool) -> tuple[str, OSError | None]:
    """What will carry the bytes of a pair, in a word: `cma`, `rdma`, `tcp`, or `ucx` where that is not known.

    Returns:
        The word; and why the memory of a process on this very host may not be accessed, where that makes it slow.
    """
    if not is_host_memory:
        return "ucx", None  # there are more ways between GPUs than can be told from outside
    refusal = None
    if mine.host == theirs.host and mine.allows_cma and theirs.allows_cma:
        refusal = access_refusal(theirs.pid, theirs.probe_address)
        if refusal is None:
            return "cma", None
    if mine.allows_rdma and theirs.allows_rdma:
        return "rdma", None
    return "tcp", refusal


def is_allowed(tls: str | None, names: frozenset[str]) -> bool:
    """Whether UCX_TLS, a list of transports or `^` and a list of forbidden ones, allows what goes by these names."""
    if tls is None:
        return True
    is_listed = bool(names & {name.strip() for name in tls.removeprefix("^").split(",")})
    return not is_listed if tls.startswith("^") else is_listed


def host_identity() -> bytes:
    """Names the running system and the process namespace; 16 bytes."""
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return xxhash.xxh3_128_digest(f"{boot_id} {Path('/proc/self/ns/pid').stat().st_ino}".encode())


def has_rdma_device() -> bool:
    """Whether this machine has an InfiniBand or RoCE device."""
    devices = Path("/sys/class/infiniband")
    return devices.is_dir() and any(devices.iterdir())


class IoVec(ctypes.Structure):
    """`struct iovec` of `process_vm_readv(2)`."""

    _fields_ = (("base", ctypes.c_void_p), ("num_bytes", ctypes.c_size_t))


def access_refusal(pid: int, address: int) -> OSError | None:
    """Why this process may not read a byte of another one's memory; None if it may. See `process_vm_readv(2)`."""
    libc = ctypes.CDLL(None, use_errno=True)
    byte = ctypes.c_char()
    here, there = IoVec(ctypes.addressof(byte), 1), IoVec(address, 1)
    num_read = libc.process_vm_readv(
        ctypes.c_int(pid),
        *(ctypes.byref(here), ctypes.c_ulong(1)),
        *(ctypes.byref(there), ctypes.c_ulong(1)),
        ctypes.c_ulong(0),
    )
    if num_read == 1:
        return None
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code))


def _fits(limit: str) -> bool:
    """Whether the kernel gives a socket such a buffer; one that it cuts would be worse than one that it sizes."""
    setting = Path("/proc/sys/net/core", limit)  # not there in every network namespace
    return setting.exists() and int(setting.read_text(encoding="ascii")) >= SOCKET_BUFFER_BYTES
