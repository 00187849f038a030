"""A rank without a group: for what a rank does by itself, such as loading its part."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from engine.checkpoint import Checkpoint
from engine.config import ModelConfig
from engine.model import Ernie45Model
from engine.parallel.communicator import SoloCommunicator
from engine.parallel.shard import Shard
from engine.parallel.topology import ShardTopology
from engine.weights import TensorOptions


@dataclass
class PosingCommunicator(SoloCommunicator):
    rank: int  # type: ignore[misc] # a constant of the class it poses as
    size: int  # type: ignore[misc]


def posing_shard(topology: ShardTopology, rank: int) -> Shard:
    return Shard(topology, PosingCommunicator(rank, topology.world_size))


def load_rank(model_dir: Path, topology: ShardTopology, rank: int) -> tuple[dict[str, Tensor], int]:
    """What a rank holds by the tensor's name, and the bytes it read."""
    options = TensorOptions(torch.float32, "cpu", shard=posing_shard(topology, rank))
    model = Ernie45Model(ModelConfig.from_dir(model_dir), options)
    bytes_read = Checkpoint(model_dir).load(model.slots())
    return {slot.names[0]: slot.destination for slot in model.slots()}, bytes_read
