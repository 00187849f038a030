import json
import logging
from collections.abc import Iterator
from datetime import datetime

import pytest

from core.errors import ConfigError
from core.logs import (
    JSON,
    TAGS,
    TEXT,
    JsonFormatter,
    TextFormatter,
    about,
    check_log_format,
    configure_logging,
    with_fields,
)


def record(message: str = "%d done", *args: object, **extra: object) -> logging.LogRecord:
    return logging.getLogger("router.x").makeRecord(
        "router.x", logging.INFO, "x.py", 1, message, args or (3,), None, extra=extra
    )


@pytest.fixture
def untouched_root() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)


def test_text_line_has_its_tags_behind_the_message() -> None:
    line = TextFormatter().format(record(**about({"request_id": "r1", "trace_id": "ab"})))
    assert line.endswith(" INFO router.x: 3 done [request_id=r1 trace_id=ab]")
    assert TextFormatter().format(record()).endswith(" INFO router.x: 3 done")


def test_json_line_is_one_object_with_time_tags_and_fields() -> None:
    line = JsonFormatter("prefill-0").format(record(**about({"request_id": "r1"}), **with_fields({"ttft_ms": 1.5})))
    entry = json.loads(line)
    assert datetime.fromisoformat(entry.pop("time")).utcoffset() is not None
    assert entry == {
        "level": "INFO",
        "process": "prefill-0",
        "logger": "router.x",
        "message": "3 done",
        "request_id": "r1",
        "ttft_ms": 1.5,
    }


def test_json_line_stays_one_line_whatever_is_logged() -> None:
    entry = record("two\nlines %s", "\x1b[31m")
    entry.exc_info = (ValueError, ValueError("a\nb"), None)
    line = JsonFormatter("router").format(entry)
    assert "\n" not in line
    assert "ValueError: a\nb" in json.loads(line)["exception"]


def test_tags_of_the_task_are_in_its_lines_and_a_lines_own_come_first() -> None:
    token = TAGS.set({"request_id": "of the task", "trace_id": "t"})
    try:
        assert TextFormatter().format(record()).endswith("[request_id=of the task trace_id=t]")
        other = TextFormatter().format(record(**about({"request_id": "another"})))
        assert other.endswith("[request_id=another trace_id=t]")
    finally:
        TAGS.reset(token)


@pytest.mark.parametrize("log_format", [TEXT, JSON])
def test_configured_process_logs_to_stderr_in_its_format(
    log_format: str, capsys: pytest.CaptureFixture[str], untouched_root: logging.Logger
) -> None:
    configure_logging(log_format, "WARNING", "router")
    logging.getLogger("x").info("not this")
    logging.getLogger("x").warning("this")
    (line,) = capsys.readouterr().err.splitlines()
    assert (json.loads(line)["message"] if log_format == JSON else line.rpartition(": ")[2]) == "this"
    assert len(untouched_root.handlers) == 1


def test_unknown_format_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="--log-format is 'xml'; it must be one of text, json"):
        check_log_format("xml", "--log-format")
