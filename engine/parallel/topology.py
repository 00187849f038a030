"""How the ranks of one worker divide a model: sizes only, and what is wrong with them. No torch, no processes.

    tensor x expert   attention and dense layers     routed experts                      a rank computes
    1 x 1             whole                          all                                 all tokens
    T x 1             cut by heads and by width      all, each cut by width              all tokens
    T x T             cut by heads and by width      whole ones, divided over the ranks  all tokens
    1 x E             whole on every rank            whole ones, divided over the ranks  its own sequences' tokens

In the last one, attention is data-parallel: the KV blocks are partitioned, and tokens travel to the ranks of their
experts and back.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from core.errors import ConfigError
from engine.config import ModelConfig, MoeConfig

TENSOR_FLAG = "--tensor-parallel-size"
EXPERT_FLAG = "--expert-parallel-size"
REDUNDANT_FLAG = "--num-redundant-experts"


@dataclass(frozen=True, slots=True)
class ShardTopology:
    """The sizes of a shard group.

    Attributes:
        tensor_parallel_size: parts that attention and dense layers are cut into.
        expert_parallel_size: ranks that the routed experts are divided over.
        num_redundant_experts: second copies of busy experts in each layer, over all ranks together.

    Raises:
        ConfigError: on construction, if the sizes do not go together; names the flag.
    """

    tensor_parallel_size: int = 1
    expert_parallel_size: int = 1
    num_redundant_experts: int = 0

    def __post_init__(self) -> None:
        tensor, expert, redundant = self.tensor_parallel_size, self.expert_parallel_size, self.num_redundant_experts
        for flag, value, minimum in (
            (TENSOR_FLAG, tensor, 1),
            (EXPERT_FLAG, expert, 1),
            (REDUNDANT_FLAG, redundant, 0),
        ):
            if value < minimum:
                raise ConfigError(f"{flag} is {value}; it must be at least {minimum}")
        if 1 not in (tensor, expert) and tensor != expert:
            raise ConfigError(
                f"{EXPERT_FLAG} is {expert} beside {TENSOR_FLAG} {tensor}; give both the same size, or leave one at 1"
            )
        if redundant and expert == 1:
            raise ConfigError(
                f"{REDUNDANT_FLAG} is {redundant}, but one rank gains nothing from copies; set {EXPERT_FLAG} above 1"
            )
        if redundant % expert:
            raise ConfigError(f"{REDUNDANT_FLAG} is {redundant}; it must be a multiple of {EXPERT_FLAG} ({expert})")

    @property
    def world_size(self) -> int:
        """Ranks of a worker."""
        return max(self.tensor_parallel_size, self.expert_parallel_size)

    @property
    def is_data_parallel(self) -> bool:
        """Whether each rank has whole attention and sequences of its own."""
        return self.tensor_parallel_size == 1 < self.expert_parallel_size

    @property
    def num_partitions(self) -> int:
        """Parts that the KV blocks fall into; all blocks of a sequence lie in one of them."""
        return self.world_size if self.is_data_parallel else 1

    @property
    def block_parts(self) -> int:
        """Ranks that each hold a part of every KV block."""
        return self.world_size // self.num_partitions

    @property
    def expert_cuts(self) -> int:
        """Parts that the width of a routed expert is cut into."""
        return self.tensor_parallel_size if self.expert_parallel_size == 1 else 1

    def kv_heads(self, config: ModelConfig) -> int:
        """KV heads that one rank holds; with more ranks than heads, several hold the same one."""
        return max(1, config.num_kv_heads // self.tensor_parallel_size)

    def check(self, config: ModelConfig) -> None:
        """Makes sure that a model can be divided this way.

        Raises:
            ConfigError: it cannot; names the flag, its value and the field of `config.json`.
        """
        for name, value in _cut_sizes(config, self):
            if value % self.tensor_parallel_size:
                raise ConfigError(
                    f"{TENSOR_FLAG} is {self.tensor_parallel_size}, which does not divide {name} ({value}) of "
                    "config.json; choose a size that divides it"
                )
        if config.num_kv_heads % self.tensor_parallel_size and self.tensor_parallel_size % config.num_kv_heads:
            raise ConfigError(
                f"{TENSOR_FLAG} is {self.tensor_parallel_size}, which neither divides num_key_value_heads "
                f"({config.num_kv_heads}) of config.json nor is a multiple of it; choose a size that does"
            )
        if self.expert_parallel_size > 1:
            self._check_experts(config.moe)

    def _check_experts(self, moe: MoeConfig | None) -> None:
        size = self.expert_parallel_size
        if moe is None:
            raise ConfigError(
                f"{EXPERT_FLAG} is {size}, but config.json describes a model without experts; leave it at 1"
            )
        if moe.num_experts % size:
            raise ConfigError(
                f"{EXPERT_FLAG} is {size}, which does not divide moe_num_experts ({moe.num_experts}) of config.json; "
                "choose a size that divides it"
            )
        most = moe.num_experts * (size - 1)
        if self.num_redundant_experts > most:
            raise ConfigError(
                f"{REDUNDANT_FLAG} is {self.num_redundant_experts}; set at most {most}, with which every rank has "
                "every expert"
            )


ONE_RANK = ShardTopology()


def _cut_sizes(config: ModelConfig, topology: ShardTopology) -> Iterator[tuple[str, int]]:
    """What tensor parallelism cuts: names and values of the config's fields."""
    yield "num_attention_heads", config.num_heads
    yield "vocab_size", config.vocab_size
    if not all(config.is_moe_layer(layer) for layer in range(config.num_layers)):
        yield "intermediate_size", config.intermediate_size
    if config.moe is not None and topology.expert_parallel_size == 1:
        yield "moe_intermediate_size", config.moe.intermediate_size
    if config.moe is not None:
        shared = config.moe.intermediate_size * config.moe.num_shared_experts
        yield "moe_intermediate_size times moe_num_shared_experts", shared
