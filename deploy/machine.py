"""Whether this machine has what the ranks of the workers need. Looked at before anything is started."""

import os

from core.errors import ConfigError
from core.request import HALVES, Role
from deploy.config import ServeConfig


def check_machine(config: ServeConfig) -> None:
    """Makes sure that the ranks of a shard group need not wait for each other's device.

    Workers may share a core, as they do on small machines; the ranks of one worker compute at the same time.

    Raises:
        ConfigError: there are too few cores or GPUs; names the flag.
    """
    sizes = {role: config.topology_of(role).world_size for role in HALVES}
    if config.device == "cuda":
        num_gpus = count_gpus()
        if config.num_ranks > num_gpus:
            prefill, decode = (f"of {sizes[role]}" for role in HALVES)
            workers = f"{config.prefill} prefill workers {prefill}, {config.decode} decode workers {decode}"
            raise ConfigError(
                f"--device cuda needs a GPU for each of {config.num_ranks} ranks ({workers}), but this machine has "
                f"{num_gpus}; lower --prefill, --decode or the parallel sizes"
            )
        return
    num_cores = len(os.sched_getaffinity(0))
    for role, size in sizes.items():
        if size > num_cores:
            raise ConfigError(
                f"{size_flag(config, role)} is {size}, but only {num_cores} cores may be used here; lower it to at "
                f"most {num_cores}"
            )


def size_flag(config: ServeConfig, role: Role) -> str:
    """The flag that says how many ranks the workers of a role have."""
    topology = config.topology_of(role)
    if topology.tensor_parallel_size < topology.world_size:
        return "--expert-parallel-size"
    is_own = role is Role.DECODE and config.decode_tensor_parallel_size is not None
    return "--decode-tensor-parallel-size" if is_own else "--tensor-parallel-size"


def count_gpus() -> int:
    """GPUs that may be used. Imports torch, which nothing else in the commanding process needs."""
    import torch  # noqa: PLC0415

    return torch.cuda.device_count()
