"""Log lines as text or JSON, each with the request that it is about. Not what is logged, and not where it goes."""

import json
import logging
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from core.errors import ConfigError

TEXT, JSON = "text", "json"
LOG_FORMATS = (TEXT, JSON)
TAGS: ContextVar[Mapping[str, str]] = ContextVar("log tags", default=MappingProxyType({}))
"""What every line of the current task is about, such as `request_id` and `trace_id`."""

_TEXT_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def check_log_format(log_format: str, name: str) -> None:
    """Makes sure that a setting is one of `LOG_FORMATS`; `name` is where it comes from, for the error.

    Raises:
        ConfigError: it is not.
    """
    if log_format not in LOG_FORMATS:
        raise ConfigError(f"{name} is {log_format!r}; it must be one of {', '.join(LOG_FORMATS)}")


def about(tags: Mapping[str, str]) -> dict[str, Any]:
    """The `extra` of a line about a request, written by a task that is not the request's own."""
    return {"tags": tags}


def with_fields(fields: Mapping[str, object]) -> dict[str, Any]:
    """The `extra` of a line whose numbers programs are to read; as text, only its message is written."""
    return {"fields": fields}


def configure_logging(log_format: str, level: str, process: str) -> None:
    """Has this process log to stderr, and to nowhere else.

    Args:
        log_format: one of `LOG_FORMATS`.
        level: a name of the `logging` module, such as INFO.
        process: names the process in JSON lines.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter(process) if log_format == JSON else TextFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)


class TextFormatter(logging.Formatter):
    """Lines for people: the tags stand in brackets behind the message, and before a traceback."""

    def __init__(self) -> None:
        super().__init__(_TEXT_FORMAT)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is logging's
        """The line without its traceback."""
        words = [f"{name}={value}" for name, value in _tags(record).items()]
        return super().formatMessage(record) + (f" [{' '.join(words)}]" if words else "")


class JsonFormatter(logging.Formatter):
    """One JSON object a line, with the keys time, level, process, logger, message; tags, fields and exception follow.

    Args:
        process: names this process.
    """

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """The line; its time is UTC."""
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "process": self._process,
            "logger": record.name,
            "message": record.getMessage(),
            **_tags(record),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def _tags(record: logging.LogRecord) -> Mapping[str, str]:
    return {**TAGS.get(), **getattr(record, "tags", {})}
