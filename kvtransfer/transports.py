"""Which transports there are, and opening those that this machine has."""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from core.errors import ConfigError
from core.ids import WorkerId
from kvtransfer.collective_transport import CollectiveTransport
from kvtransfer.local_transport import LocalTransport
from kvtransfer.memory import RankMemory
from kvtransfer.transport import Transport
from kvtransfer.ucx import configure_ucx

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TransportSettings:
    """What a user may say about transports.

    Attributes:
        host: address of this machine at which peers reach it.
        nixl_backends: NIXL's plugins to use.
        ucx_tls: the transports that UCX may use; None leaves them to the environment and to UCX.
    """

    host: str = "127.0.0.1"
    nixl_backends: tuple[str, ...] = ("UCX",)
    ucx_tls: str | None = None


OpenTransport = Callable[[WorkerId, RankMemory, TransportSettings], Transport]


def _open_nixl(rank: WorkerId, memory: RankMemory, settings: TransportSettings) -> Transport:
    """Imports NIXL here: that takes half a second, and reads its log level."""
    os.environ.setdefault("NIXL_LOG_LEVEL", "WARN")
    try:
        from kvtransfer.nixl_transport import NixlTransport  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(f"NIXL cannot be imported here: {error}; reinstall the package nixl") from error
    return NixlTransport(rank, memory, settings.nixl_backends)


def _open_collective(rank: WorkerId, memory: RankMemory, settings: TransportSettings) -> Transport:
    return CollectiveTransport(rank, memory, settings.host)


_neighbours: dict[WorkerId, RankMemory] = {}  # of the local transports of this process


def _open_local(rank: WorkerId, memory: RankMemory, _settings: TransportSettings) -> Transport:
    return LocalTransport(rank, memory, _neighbours)


TRANSPORTS: dict[str, OpenTransport] = {
    "nixl": _open_nixl,
    "collective": _open_collective,
    "local": _open_local,  # for tests
}
"""How each is opened, by name; raises ConfigError where it cannot be."""


def open_transports(
    names: Sequence[str], rank: WorkerId, memory: RankMemory, settings: TransportSettings
) -> dict[str, Transport]:
    """Opens transports for one rank; those that do not work on this machine are left out with a warning.

    Args:
        names: of `TRANSPORTS`, the preferred one first.
        rank: this rank.
        memory: its regions.
        settings: of all of them.

    Returns:
        By name, in the same order; at least one.

    Raises:
        ConfigError: a name is unknown, none of them works here, or UCX is told what cannot work anywhere.
    """
    unknown = [name for name in names if name not in TRANSPORTS]
    if unknown:
        raise ConfigError(f"there is no KV transport {unknown[0]!r}; choose from {', '.join(TRANSPORTS)}")
    if "nixl" in names:
        configure_ucx(settings.ucx_tls, settings.host)
    opened, refusals = {}, []
    for name in names:
        try:
            opened[name] = TRANSPORTS[name](rank, memory, settings)
        except ConfigError as error:
            refusals.append(f"{name}: {error}")
    if not opened:
        raise ConfigError(f"no KV transport of {list(names)} works here: {'; '.join(refusals)}")
    for refusal in refusals:
        logger.warning("a KV transport is left out, %s", refusal)
    return opened
