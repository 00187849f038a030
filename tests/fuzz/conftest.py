from tests.fuzz.traces import no_traces  # noqa: F401 - a fixture
from tests.router.http.serving import api, codec, config, running_api, tiny_model_dir  # noqa: F401 - fixtures
