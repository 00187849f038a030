import pytest

from core.errors import ConfigError
from loadtest.roofline.assumptions import Assumptions
from loadtest.roofline.gpu import gpu_by_name, known_gpus


def test_every_gpu_of_the_plan_is_there() -> None:
    assert list(known_gpus()) == ["H800", "H100", "H200", "H20", "B200"]


def test_units_are_bytes_and_operations_per_second() -> None:
    h800 = gpu_by_name("h800")
    assert h800.matrix_flops_per_s(8) == 1.979e15
    assert h800.memory_bytes_per_s == 3.35e12
    assert h800.memory_bytes == 81_559 * 2**20
    assert h800.nvlink_bytes_per_s == 200e9
    assert h800.nic_bytes_per_s == 50e9


def test_narrow_operands_take_the_narrowest_format_that_holds_them() -> None:
    assert gpu_by_name("B200").matrix_flops_per_s(4) == 9e15
    assert gpu_by_name("H100").matrix_flops_per_s(4) == 1.979e15


def test_operands_of_unknown_speed_are_refused() -> None:
    with pytest.raises(ConfigError, match="H100 multiplies 32-bit operands is not known; plan a model in bfloat16"):
        gpu_by_name("H100").matrix_flops_per_s(32)


def test_unknown_gpu_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(ConfigError, match="--gpu is 'A100', whose speed is not known; take one of H800, H100"):
        gpu_by_name("A100")


def test_assumptions_vary_by_name() -> None:
    assert (
        Assumptions().varied("step_s", 0.5) != Assumptions() == Assumptions().varied("step_s", Assumptions().step_s)
    )
