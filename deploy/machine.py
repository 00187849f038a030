"""Whether this machine has what the ranks of the workers need. Looked at before anything is started."""

import os

from core.errors import ConfigError
from deploy.config import ServeConfig


def check_machine(config: ServeConfig) -> None:
    """Makes sure that the ranks of a shard group need not wait for each other's device.

    Workers may share a core, as they do on small machines; the ranks of one worker compute at the same time.

    Raises:
        ConfigError: there are too few cores or GPUs; names the flag.
    """
    size = config.topology.world_size
    if config.device == "cuda":
        num_gpus = count_gpus()
        if config.num_ranks > num_gpus:
            workers = f"{config.prefill} + {config.decode} workers of {size}"
            raise ConfigError(
                f"--device cuda needs a GPU for each of {config.num_ranks} ranks ({workers}), but this machine has "
                f"{num_gpus}; lower --prefill, --decode or the parallel sizes"
            )
        return
    num_cores = len(os.sched_getaffinity(0))
    if size > num_cores:
        flag = "--tensor-parallel-size" if config.tensor_parallel_size == size else "--expert-parallel-size"
        raise ConfigError(
            f"{flag} is {size}, but only {num_cores} cores may be used here; lower it to at most {num_cores}"
        )


def count_gpus() -> int:
    """GPUs that may be used. Imports torch, which nothing else in the commanding process needs."""
    import torch  # noqa: PLC0415

    return torch.cuda.device_count()
