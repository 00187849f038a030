from tests.router.http.serving import codec, config, tiny_model_dir  # noqa: F401 - fixtures
