from tests.router.dispatch.bench import bench, empty  # noqa: F401 - fixtures
