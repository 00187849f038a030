from tests.router.http.serving import api, codec, config, dispatcher, running_api, tiny_model_dir  # noqa: F401 - fixtures
