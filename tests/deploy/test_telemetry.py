import pytest

from core.errors import ConfigError
from deploy.config import ServeConfig
from deploy.telemetry import log_format_of, metrics_port_of, otlp_endpoint_of


def test_flag_goes_before_the_environment_and_that_before_text() -> None:
    assert log_format_of("text", {"BATON_LOG_FORMAT": "json"}) == "text"
    assert log_format_of(None, {"BATON_LOG_FORMAT": "json"}) == "json"
    assert log_format_of(None, {"BATON_LOG_FORMAT": ""}) == log_format_of(None, {}) == "text"


def test_spans_go_where_the_flag_or_opentelemetrys_variable_says() -> None:
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://b:4318"}
    assert otlp_endpoint_of("http://a:4318", environ) == "http://a:4318"
    assert otlp_endpoint_of(None, environ) == "http://b:4318"
    assert otlp_endpoint_of(None, {}) is None


def test_errors_name_the_variable() -> None:
    with pytest.raises(ConfigError, match="BATON_LOG_FORMAT is 'xml'"):
        log_format_of(None, {"BATON_LOG_FORMAT": "xml"})
    with pytest.raises(ConfigError, match="OTEL_EXPORTER_OTLP_ENDPOINT is 'b:4318'"):
        otlp_endpoint_of(None, {"OTEL_EXPORTER_OTLP_ENDPOINT": "b:4318"})


def test_each_router_has_a_metrics_port_of_its_own() -> None:
    assert [metrics_port_of(9464, index) for index in range(3)] == [9464, 9465, 9466]
    assert (metrics_port_of(None, 1), metrics_port_of(0, 1)) == (None, 0)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"metrics_port": 70000}, "--metrics-port is 70000; a port is between 0 and 65535"),
        ({"metrics_port": 8000}, "--metrics-port is 8000, where the API is"),
        ({"metrics_port": 8001}, "--metrics-port is 8001, where the API is"),
        ({"otlp_endpoint": "collector"}, "--otlp-endpoint is 'collector'"),
        ({"log_format": "xml"}, "--log-format is 'xml'; it must be one of text, json"),
    ],
)
def test_flag_that_cannot_work_is_refused(flags: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ServeConfig(**flags)  # type: ignore[arg-type]
