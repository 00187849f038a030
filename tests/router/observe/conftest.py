from tests.router.dispatch.bench import bench, empty  # noqa: F401 - fixtures
from tests.router.observe.collector import collector  # noqa: F401 - fixture
