import os

import pytest

from core.errors import ConfigError
from deploy import machine
from deploy.config import ServeConfig
from deploy.machine import check_machine


@pytest.fixture(autouse=True)
def _two_cores_and_four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1})
    monkeypatch.setattr(machine, "count_gpus", lambda: 4)


@pytest.mark.parametrize(
    "config",
    [
        ServeConfig(prefill=3, decode=3),
        ServeConfig(tensor_parallel_size=2, prefill=3),
        ServeConfig(device="cuda", prefill=2, decode=2),
        ServeConfig(device="cuda", expert_parallel_size=2),
    ],
)
def test_workers_may_share_cores_but_not_gpus(config: ServeConfig) -> None:
    check_machine(config)


@pytest.mark.parametrize(
    ("sizes", "flag"),
    [
        ({"tensor_parallel_size": 4}, "--tensor-parallel-size is 4"),
        ({"tensor_parallel_size": 4, "expert_parallel_size": 4}, "--tensor-parallel-size is 4"),
        ({"expert_parallel_size": 3}, "--expert-parallel-size is 3"),
        ({"decode_tensor_parallel_size": 4}, "--decode-tensor-parallel-size is 4"),
        ({"tensor_parallel_size": 4, "decode_tensor_parallel_size": 1}, "--tensor-parallel-size is 4"),
    ],
)
def test_worker_with_more_ranks_than_cores_is_refused_by_flag(sizes: dict[str, int], flag: str) -> None:
    with pytest.raises(ConfigError, match=f"^{flag}, but only 2 cores may be used here"):
        check_machine(ServeConfig(**sizes))


def test_more_ranks_than_gpus_are_refused_with_both_numbers() -> None:
    with pytest.raises(
        ConfigError, match=r"a GPU for each of 6 ranks \(2 prefill workers of 2, 1 decode workers of 2\), but this"
    ):
        check_machine(ServeConfig(device="cuda", prefill=2, tensor_parallel_size=2))
