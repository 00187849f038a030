from collections.abc import Iterator

import pytest

from tests.engine.parallel.ranks import Ranks


@pytest.fixture(scope="session")
def ranks() -> Iterator[Ranks]:
    """Processes for all groups of the session."""
    ranks = Ranks()
    yield ranks
    ranks.end()
