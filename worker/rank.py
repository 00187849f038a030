"""What every rank of a worker does first: pin itself, join its group, load its part, register its KV for transfers.

Not what it does afterwards: rank 0 is `worker.process`, the others are `worker.follower`.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from core.clock import SystemClock
from core.errors import ConfigError
from core.ids import WorkerId, rank_id
from core.processes import RankProcess, this_process
from engine.engine import Engine
from engine.messages import RANK_MESSAGES
from engine.parallel.communicator import SOLO, Communicator
from engine.parallel.process_group import connect
from kvtransfer.carrier import Carrier
from kvtransfer.geometry import WorkerGeometry
from kvtransfer.memory import memory_of
from kvtransfer.mover import BlockMover
from kvtransfer.transports import TransportSettings, open_transports
from worker.config import WorkerConfig
from worker.engine_factory import load_engine
from worker.turns import SHORT_TURN_NS, take_turns_of


@dataclass(frozen=True, slots=True)
class Rank:
    """One rank, loaded.

    Attributes:
        worker: the worker's id, which rank 0 makes and all ranks share.
        communicator: to the other ranks.
        engine: this rank's part.
        geometry: how the worker's KV lies on its ranks.
        mover: this rank's end of the transfer plane.
        processes: of all ranks, rank 0 first; rank 0 knows them, the others have none.
    """

    worker: WorkerId
    communicator: Communicator
    engine: Engine
    geometry: WorkerGeometry
    mover: BlockMover
    processes: tuple[RankProcess, ...]


def open_rank(config: WorkerConfig, store_address: str | None, on_crash: Callable[[], None]) -> Rank:
    """Joins the group and loads; every rank of the group does so at the same time.

    Args:
        config: of this rank.
        store_address: where the ranks meet; None for a worker of one rank.
        on_crash: called when the transfer plane's thread ends by a defect.

    Raises:
        CheckpointError: the model cannot be served.
        ConfigError: a setting cannot work.
        UnavailableError: the other ranks did not come.
    """
    take_turns_of(SHORT_TURN_NS)
    pin_to_cores(config.cpu_ids)
    communicator = _join(config, store_address)
    incarnation = max(time.time_ns(), config.min_incarnation)
    mine = WorkerId(config.name, incarnation) if config.rank == 0 else None
    worker = communicator.broadcast_object(mine)
    assert isinstance(worker, WorkerId), f"rank 0 sent {worker!r} instead of the worker's id"
    engine = load_engine(config, communicator)
    geometry = geometry_of(engine)
    memory = memory_of(engine.pool)
    transports = open_transports(config.kv_transports, rank_id(worker, config.rank), memory, settings_of(config))
    carrier = Carrier(transports, memory, geometry.rank(config.rank), engine.progress, SystemClock())
    processes = communicator.gather_object(RankProcess(config.node, this_process()))
    return Rank(worker, communicator, engine, geometry, BlockMover(carrier, on_crash), tuple(processes or ()))


def geometry_of(engine: Engine) -> WorkerGeometry:
    """How the KV of an engine's group lies on its ranks."""
    return WorkerGeometry(
        layout=engine.pool.layout,
        total_kv_heads=engine.config.num_kv_heads,
        tensor_parallel_size=engine.topology.tensor_parallel_size,
        num_partitions=engine.topology.num_partitions,
        num_blocks=engine.pool.num_blocks,
    )


def _join(config: WorkerConfig, store_address: str | None) -> Communicator:
    size = config.topology.world_size
    if store_address is None:
        assert size == 1, f"{size} ranks need a place to meet"
        return SOLO
    return connect(config.rank, size, store_address, config.device, host=config.host, kinds=RANK_MESSAGES)


def settings_of(config: WorkerConfig) -> TransportSettings:
    """What a worker's settings say about its transports."""
    return TransportSettings(config.host, nixl_backends=(config.nixl_backend,), ucx_tls=config.ucx_tls)


def pin_to_cores(cpu_ids: tuple[int, ...]) -> None:
    """Pins the process to cores, with one torch thread each; does nothing without any.

    Raises:
        ConfigError: a core does not exist or may not be used.
    """
    if not cpu_ids:
        return
    try:
        os.sched_setaffinity(0, cpu_ids)
    except OSError as error:
        raise ConfigError(f"cannot pin to cores {cpu_ids}: {error}; this machine has {os.cpu_count()}") from error
    torch.set_num_threads(len(cpu_ids))
