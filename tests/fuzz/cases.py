"""Which cases the fuzz tests try: the same few in every run, N others of each operation with BATON_FUZZ_CASES=N.

`BATON_FUZZ_CASES=1000 python -m pytest tests/fuzz -rP` prints how many it was.
"""

import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

IS_SEARCH = "BATON_FUZZ_CASES" in os.environ  # for new failures, which are no news about a change that is tested
NUM_CASES = int(os.environ.get("BATON_FUZZ_CASES", "25"))


def try_cases(name: str, cases: SearchStrategy[Any], check: Callable[[Any], None]) -> None:
    """Checks cases; the first that fails is made small and raised. Prints how many there were."""
    num_tried = 0

    @settings(
        max_examples=NUM_CASES,
        database=None,
        derandomize=not IS_SEARCH,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(cases)
    def run(case: Any) -> None:  # noqa: ANN401 - whatever the strategy makes
        nonlocal num_tried
        num_tried += 1
        check(case)

    run()
    print(f"{name}: {num_tried} cases, 0 failures")  # noqa: T201 - the figure
