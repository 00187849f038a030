"""How a model is divided among the ranks of one worker, and whether it can be."""

from dataclasses import dataclass

from core.errors import ConfigError
from deploy.planning.shape import ModelShape


@dataclass(frozen=True, slots=True)
class Sharding:
    """Sizes of a shard group, which divides a model in one of three ways.

        tp = T, ep = 1    attention, dense layers and every expert are cut by width
        tp = T, ep = T    attention and dense layers are cut by width; whole experts are divided
        tp = 1, ep = E    every rank has all of attention and its own sequences; whole experts are divided

    Attributes:
        tp: ranks that share attention and dense layers.
        ep: ranks that share the routed experts.

    Raises:
        ConfigError: on construction, when the sizes are none of these.
    """

    tp: int = 1
    ep: int = 1

    def __post_init__(self) -> None:
        for flag, value in (("--tp", self.tp), ("--ep", self.ep)):
            if value < 1:
                raise ConfigError(f"{flag} is {value}; it must be at least 1")
        if 1 not in (self.tp, self.ep) and self.tp != self.ep:
            raise ConfigError(f"--tp is {self.tp} and --ep is {self.ep}; they must be equal, or one of them 1")

    @property
    def num_ranks(self) -> int:
        """Ranks in the group."""
        return max(self.tp, self.ep)

    @property
    def num_kv_copies(self) -> int:
        """Ranks that each keep KV of other sequences; the others share the same sequences."""
        return self.num_ranks // self.tp

    @property
    def expert_cuts(self) -> int:
        """Parts that the width of an expert is cut into."""
        return self.tp if self.ep == 1 else 1

    def check(self, shape: ModelShape) -> None:
        """Makes sure that a model can be divided so.

        Raises:
            ConfigError: a size does not divide; names the flag, its value and the size.
        """
        text, moe = shape.text, shape.text.moe
        tp_sizes = {"query heads": text.num_heads, "columns of a dense MLP": text.intermediate_size}
        ep_sizes = {}
        if moe is not None:
            tp_sizes["columns of the shared experts"] = moe.intermediate_size * moe.num_shared_experts
            tp_sizes["columns of an expert"] = moe.intermediate_size if self.expert_cuts > 1 else 0
            tp_sizes["columns of a vision expert"] = shape.vision_expert_width if self.expert_cuts > 1 else 0
            ep_sizes = {"experts": moe.num_experts, "vision experts": shape.num_vision_experts}
        elif self.ep > 1:
            raise ConfigError(f"--ep is {self.ep}, but the model has no experts; leave it out")
        _check_divides("--tp", self.tp, tp_sizes)
        _check_divides("--ep", self.ep, ep_sizes)
        if text.num_kv_heads % self.tp and self.tp % text.num_kv_heads:
            raise ConfigError(
                f"--tp is {self.tp}; it must divide the {text.num_kv_heads} KV heads, or be a multiple of them"
            )


def _check_divides(flag: str, num_parts: int, sizes: dict[str, int]) -> None:
    for name, size in sizes.items():
        if size % num_parts:
            raise ConfigError(f"{flag} is {num_parts}; it must divide the {size} {name}")
