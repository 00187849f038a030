from tests.router.http.serving import codec, config, tiny_model_dir  # noqa: F401 - fixtures
from tests.router.state.conftest import redis_program, redis_server, shared_redis  # noqa: F401 - fixtures
