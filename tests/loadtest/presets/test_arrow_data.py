"""The file has what the preset says, and says where it is from."""

import pytest

from loadtest.presets.arrow import COST, DATA, FLEETS, SEGMENTS


def test_every_table_names_its_source() -> None:
    tables = [table for value in DATA.values() for table in (value if isinstance(value, list) else [value])]
    assert all(table["source"] for table in tables)


@pytest.mark.parametrize("num_tokens", [1, 300, 2048])
def test_prompt_takes_the_published_polynomial(num_tokens: int) -> None:
    assert COST.completion_s(0, num_tokens) == pytest.approx(2e-8 * num_tokens**2 + 6e-5 * num_tokens + 0.005)


def test_fleets_and_segments_are_those_of_the_paper() -> None:
    assert {fleet.num_workers for fleet in FLEETS.values()} == {8}
    assert [segment.duration_s for segment in SEGMENTS] == [30.0, 30.0, 30.0]
