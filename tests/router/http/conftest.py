from tests.router.http.serving import (  # noqa: F401 - fixtures
    api,
    ask,
    codec,
    config,
    dispatcher,
    http,
    running_api,
    sdk,
    tiny_model_dir,
)
