from collections.abc import Iterator

import pytest

from tests.router.http.serving import api, codec, config, running_api, tiny_model_dir  # noqa: F401 - fixtures


@pytest.fixture(autouse=True)
def no_traces(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What a client sends must not be a defect in the server's log, either: such a log can be filled from afar."""
    yield
    assert not [record.getMessage() for record in caplog.records if record.exc_info]
