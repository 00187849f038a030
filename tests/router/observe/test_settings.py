import pytest

from core.errors import ConfigError
from router.observe.settings import check_otlp_endpoint


@pytest.mark.parametrize("endpoint", ["http://localhost:4318", "https://collector.example/base", "http://[::1]:4318"])
def test_url_of_a_collector_is_taken(endpoint: str) -> None:
    check_otlp_endpoint(endpoint, "--otlp-endpoint")


@pytest.mark.parametrize("endpoint", ["localhost:4318", "grpc://h:4317", "http://", "", "http://h:port", "http://[h"])
def test_anything_else_is_refused_with_what_it_should_be(endpoint: str) -> None:
    with pytest.raises(ConfigError, match=r"^--otlp-endpoint is .*http://collector:4318"):
        check_otlp_endpoint(endpoint, "--otlp-endpoint")


def test_password_in_the_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError, match="OTEL_EXPORTER_OTLP_HEADERS") as caught:
        check_otlp_endpoint("http://me:hunter2@collector:4318", "--otlp-endpoint")
    assert "hunter2" not in str(caught.value)
