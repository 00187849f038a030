import math

import pytest

from core.errors import ConfigError
from router.roles.settings import ControllerSettings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("horizon_s", 0.0),
        ("horizon_s", math.nan),
        ("memory_s", -1.0),
        ("significance", 0.0),
        ("min_gain", -0.1),
        ("dwell_s", math.inf),
        ("max_flip_share", 1.5),
        ("flip_s", -1.0),
        ("moved_sequence_s", math.nan),
        ("emergency_dwell_s", 60.0),
    ],
)
def test_value_out_of_range_is_refused_with_its_name(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name} .* is {value}; it must be"):
        ControllerSettings(**{name: value})
