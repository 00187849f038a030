"""What a worker says of itself when the router attaches."""

from dataclasses import dataclass

from core.cost import CostModel
from core.errors import ConfigError
from core.ids import WorkerEndpoint
from core.processes import RankProcess
from core.roles import RoleState

MAY_DIFFER = {
    "kv_heads",
    "block_tokens",
}  # heads of a rank follow from its division; sizes of blocks are compared apart
SHAPE_OF_BLOCKS = ("fingerprint", "layout", "block_bytes", "tensor_parallel_size", "expert_parallel_size")
POSITIVE = (
    "block_tokens", "block_bytes", "num_blocks", "max_num_seqs", "max_model_len",
    "tensor_parallel_size", "expert_parallel_size",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class WorkerHello:
    """Facts that hold until the stream ends or another hello comes on it; what it is for changes meanwhile.

    Attributes:
        endpoint: the worker's id and address.
        role_state: what it is for; its epoch goes back with every assignment.
        fingerprint: of model and serving type.
        layout: of its KV blocks, as (field, value) pairs; the router only compares them.
        block_tokens: tokens per KV block.
        block_bytes: of a KV block, on all ranks together.
        num_blocks: blocks in its pool.
        max_num_seqs: sequences that decode at once at most.
        max_model_len: tokens of prompt plus answer at most.
        cost_model: how long its steps take, as measured before it served.
        tensor_parallel_size: ranks that each hold a part of its attention and dense layers.
        expert_parallel_size: ranks that each hold some of its experts.
        num_redundant_experts: places for further copies of experts.
        processes: of its ranks; none when it does not say.
        versions: of what is installed there, as (package, version) pairs.
        unix_s: its clock when it said this, seconds since 1970; 0 when it does not say.

    Raises:
        ConfigError: on construction, when a worker that says so can serve nothing.
    """

    endpoint: WorkerEndpoint
    role_state: RoleState
    fingerprint: str
    layout: tuple[tuple[str, int | str], ...]
    block_tokens: int
    block_bytes: int
    num_blocks: int
    max_num_seqs: int
    max_model_len: int
    cost_model: CostModel
    tensor_parallel_size: int = 1
    expert_parallel_size: int = 1
    num_redundant_experts: int = 0
    processes: tuple[RankProcess, ...] = ()
    versions: tuple[tuple[str, str], ...] = ()
    unix_s: float = 0.0

    def __post_init__(self) -> None:
        for name in POSITIVE:
            value = getattr(self, name)
            if value < 1:
                raise ConfigError(f"worker {self.endpoint.worker} says {name} is {value}; it must be positive")

    def has_blocks_like(self, other: "WorkerHello") -> bool:
        """Whether a block of one can be a block of the other, byte for byte and rank for rank."""
        return all(getattr(self, name) == getattr(other, name) for name in SHAPE_OF_BLOCKS)

    def difference(self, other: "WorkerHello") -> str | None:
        """Why two workers cannot serve the same requests, with both values, or None if they can.

        They may be divided differently among ranks: blocks are put together anew on their way.
        """
        if self.fingerprint != other.fingerprint:
            return f"model fingerprint {self.fingerprint} against {other.fingerprint}"
        mine, theirs = dict(self.layout), dict(other.layout)
        for name in sorted((mine.keys() | theirs.keys()) - MAY_DIFFER):
            if mine.get(name) != theirs.get(name):
                return f"KV layout: {name} {mine.get(name)} against {theirs.get(name)}"
        small, large = sorted((self.block_tokens, other.block_tokens))
        if large % small:
            sizes = f"{self.block_tokens} against {other.block_tokens} tokens"
            return f"KV blocks of {sizes}: one size must be a multiple of the other, see --block-size"
        if self.max_model_len != other.max_model_len:
            return f"max_model_len {self.max_model_len} against {other.max_model_len}"
        return None
