"""What of a model's KV each rank of a worker holds, and whether two workers' KV can be reconciled. Sizes only."""

from dataclasses import dataclass

from core.errors import IncompatibleLayoutError
from engine.kv.layout import DTYPE_BYTES, KvLayout


@dataclass(frozen=True, slots=True)
class RankGeometry:
    """The part of a worker's KV that one rank holds.

    Attributes:
        layout: of the rank's part of a block.
        first_head: the first of the model's KV heads in it; `layout.kv_heads` adjacent ones are.
        num_blocks: in the rank's pool; its own ids count from 0.
    """

    layout: KvLayout
    first_head: int
    num_blocks: int

    @property
    def end_head(self) -> int:
        """One past the last KV head."""
        return self.first_head + self.layout.kv_heads


@dataclass(frozen=True, slots=True)
class WorkerGeometry:
    """How a worker's KV lies on its ranks. A few numbers, which the handshake carries.

        book of the worker   0 ........ n ........ 2n ........ num_blocks       n = num_blocks / num_partitions
        ranks that hold it   [ partition 0 )[ partition 1 )[ ...                each `tensor_parallel_size` ranks

    The ranks of a partition divide the KV heads; with more ranks than heads, adjacent ranks hold the same one.

    Attributes:
        layout: of one rank's part of a block; all ranks have the same.
        total_kv_heads: of the model.
        tensor_parallel_size: ranks that each hold a part of every block of their partition.
        num_partitions: parts of the worker's book, each on ranks of its own.
        num_blocks: in the worker's book, a multiple of `num_partitions`.

    Raises:
        IncompatibleLayoutError: on construction, if the numbers do not go together; names them all.
    """

    layout: KvLayout
    total_kv_heads: int
    tensor_parallel_size: int
    num_partitions: int
    num_blocks: int

    def __post_init__(self) -> None:
        if not self._is_sound():
            raise IncompatibleLayoutError(f"there is no division of KV like this: {self.describe()}")

    @property
    def num_ranks(self) -> int:
        """Ranks of the worker."""
        return self.tensor_parallel_size * self.num_partitions

    @property
    def num_replicas(self) -> int:
        """Ranks of a partition that hold the same heads."""
        return max(1, self.tensor_parallel_size // self.total_kv_heads)

    @property
    def blocks_per_partition(self) -> int:
        """Blocks of each rank's pool."""
        return self.num_blocks // self.num_partitions

    def ranks_of(self, partition: int) -> range:
        """The ranks that hold a partition."""
        first = partition * self.tensor_parallel_size
        return range(first, first + self.tensor_parallel_size)

    def rank(self, number: int) -> RankGeometry:
        """What a rank holds."""
        assert 0 <= number < self.num_ranks, f"rank {number} of {self.num_ranks}"
        index = number % self.tensor_parallel_size
        first_head = index * self.total_kv_heads // self.tensor_parallel_size
        return RankGeometry(self.layout, first_head, self.blocks_per_partition)

    def describe(self) -> str:
        """All numbers, for people."""
        layout = self.layout
        return (
            f"{layout.num_layers} layers, {self.total_kv_heads} KV heads ({layout.kv_heads} per rank), head_dim "
            f"{layout.head_dim}, {layout.dtype}, {self.num_blocks} blocks of {layout.block_tokens} tokens in "
            f"{self.num_partitions} partitions of {self.tensor_parallel_size} ranks"
        )

    def _is_sound(self) -> bool:
        layout, heads, size = self.layout, self.total_kv_heads, self.tensor_parallel_size
        sizes = (layout.num_layers, layout.block_tokens, layout.head_dim, heads, size, self.num_partitions)
        return (
            min(sizes) > 0
            and layout.dtype in DTYPE_BYTES
            and (heads % size == 0 or size % heads == 0)
            and layout.kv_heads == max(1, heads // size)
            and self.num_blocks > 0
            and self.num_blocks % self.num_partitions == 0
        )


def reconcile(mine: WorkerGeometry, theirs: WorkerGeometry) -> None:
    """Makes sure that KV can be moved between two workers, however each divides it.

    Raises:
        IncompatibleLayoutError: it cannot; the message has what differs, and all numbers of both.
    """
    numbers = f"here: {mine.describe()}; there: {theirs.describe()}"
    for name, here, there in (
        ("num_layers", mine.layout.num_layers, theirs.layout.num_layers),
        ("head_dim", mine.layout.head_dim, theirs.layout.head_dim),
        ("dtype", mine.layout.dtype, theirs.layout.dtype),
        ("the number of KV heads", mine.total_kv_heads, theirs.total_kv_heads),
    ):
        if here != there:
            raise IncompatibleLayoutError(
                f"{name} is {here} here and {there} there; serve the same model with the same --dtype ({numbers})"
            )
    here, there = sorted((mine.layout.block_tokens, theirs.layout.block_tokens))
    if there % here:
        raise IncompatibleLayoutError(
            f"blocks are of {mine.layout.block_tokens} tokens here and of {theirs.layout.block_tokens} there; give "
            f"both the same --block-size, or one a multiple of the other's ({numbers})"
        )
