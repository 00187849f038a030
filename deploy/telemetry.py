"""What processes tell about themselves: settings that may come from flags or from the environment."""

from collections.abc import Mapping

from core.logs import TEXT, check_log_format
from router.observe.settings import check_otlp_endpoint

LOG_FORMAT_VARIABLE = "BATON_LOG_FORMAT"
OTLP_VARIABLE = "OTEL_EXPORTER_OTLP_ENDPOINT"  # the name is OpenTelemetry's


def log_format_of(flag: str | None, environ: Mapping[str, str]) -> str:
    """How log lines look: as the flag says, else the environment.

    Raises:
        ConfigError: the environment names no format; the flag has been checked.
    """
    log_format = flag or environ.get(LOG_FORMAT_VARIABLE) or TEXT
    check_log_format(log_format, LOG_FORMAT_VARIABLE)
    return log_format


def otlp_endpoint_of(flag: str | None, environ: Mapping[str, str]) -> str | None:
    """Where spans go: as the flag says, else the environment; None for nowhere.

    Raises:
        ConfigError: what the environment names is no URL of a collector; the flag has been checked.
    """
    endpoint = flag or environ.get(OTLP_VARIABLE) or None
    if endpoint is not None:
        check_otlp_endpoint(endpoint, OTLP_VARIABLE)
    return endpoint


def metrics_port_of(base: int | None, router_index: int) -> int | None:
    """The port of one of several routers on this machine: the first has the one that was asked for, and so on."""
    return base + router_index if base else base
