"""One rank's place in its group: which part of the model is its own, and how it reaches the others."""

from dataclasses import dataclass

from torch import Tensor

from engine.config import MoeConfig
from engine.parallel.axis_part import AxisPart
from engine.parallel.balancer import Slots, initial_slots
from engine.parallel.communicator import SOLO, Communicator
from engine.parallel.placement import ExpertPlacement
from engine.parallel.topology import ONE_RANK, ShardTopology


@dataclass(frozen=True, slots=True)
class Shard:
    """A rank of a group.

    Attributes:
        topology: the group's sizes, checked against the model.
        communicator: reaches the other ranks; its size is the topology's.
    """

    topology: ShardTopology
    communicator: Communicator

    @property
    def rank(self) -> int:
        """This rank's number, from 0."""
        return self.communicator.rank

    @property
    def counts_experts(self) -> bool:
        """Whether this rank counts where tokens go: all do if each has its own tokens, else rank 0 for all."""
        return self.topology.is_data_parallel or self.rank == 0

    def add_up_(self, x: Tensor) -> None:
        """Replaces the share in a sum that a part of the model computed by the sum over the group."""
        if self.topology.tensor_parallel_size > 1:
            self.communicator.all_reduce_(x)

    def share(self, num_units: int, unit: int = 1) -> AxisPart:
        """This rank's part of an axis that tensor parallelism cuts, in whole units such as heads."""
        size = self.topology.tensor_parallel_size
        return AxisPart.share(num_units, unit, self.rank % size, size)

    def expert_width(self, moe: MoeConfig) -> AxisPart:
        """This rank's part of the width of a routed expert: whole experts are not cut."""
        if self.topology.expert_parallel_size > 1:
            return AxisPart.whole(moe.intermediate_size)
        return self.share(moe.intermediate_size)

    def initial_placement(self, moe: MoeConfig, device: str) -> ExpertPlacement:
        """Where the experts of a layer are before any load is known."""
        topology = self.topology
        slots = initial_slots(moe.num_experts, topology.num_redundant_experts, topology.expert_parallel_size)
        return self.placement(slots, device)

    def placement(self, slots: Slots, device: str) -> ExpertPlacement:
        """This rank's view of a layer's slots."""
        num_ranks = self.topology.expert_parallel_size
        return ExpertPlacement(slots, self.rank % num_ranks, num_ranks, device)


WHOLE_MODEL = Shard(ONE_RANK, SOLO)
