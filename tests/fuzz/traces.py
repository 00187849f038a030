"""What a stranger sends must not be a defect in the log, either: such a log can be filled from afar."""

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def no_traces(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert not [record.getMessage() for record in caplog.records if record.exc_info]
