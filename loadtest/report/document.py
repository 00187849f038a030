"""The document that `baton load --json` writes, as the report reads it. Not what computes it: `load.summary`.

    {
      "url": ..., "model": ..., "started_at": ISO 8601, "valid": true or false,
      "settings": {flag: value}, "machine": {name: value},
      "limits": {"ttft_ms": number or null, "tpot_ms": number or null},
      "checks": [{"name", "value", "unit", "target", "holds"}],
      "runs": [{
        "name": for people, such as "4 requests/s",
        "rate": requests per second or null, "concurrency": number or null,
        "duration_s": number, "valid": true or false, "reasons": [why it is not],
        "client": {"cpu_share": 0 to 1, "lag_p99_ms": number, "lag_max_ms": number},
        "summary": {
          "requests", "answered", "failed": numbers,
          "ttft_ms", "tpot_ms", "itl_ms", "e2e_ms", "lag_ms": {"mean", "p50", "p90", "p99", "max"} or null,
          "requests_per_s", "input_tokens_per_s", "output_tokens_per_s": numbers,
          "goodput": {"requests_per_s", "share"},
          "prompt_tokens", "planned_prompt_tokens", "cached_tokens", "output_tokens": sums; the second may be null,
          "errors": {kind: {"count", "example"}}
        },
        "faults": [{"at_s", "what", "error": null or why it could not be done}],
        "series": what `loadtest.report.series.series_of` makes of the run's records
      }]
    }

Everything else in it is passed over.
"""

import json
from pathlib import Path
from typing import Any

from core.errors import ConfigError

Document = dict[str, Any]
"""As above."""

Run = dict[str, Any]
"""One of `runs`."""

NEEDED = ("url", "model", "settings", "machine", "limits", "runs")
NEEDED_OF_RUN = ("name", "rate", "duration_s", "valid", "reasons", "client", "summary", "faults", "series")


def read_document(file: Path) -> Document:
    """What a load has written.

    Raises:
        ConfigError: the file cannot be read, or is nothing that a load has written; says what is missing.
    """
    try:
        document: Document = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{file} is no JSON ({error}); pass what `baton load --json FILE` wrote") from error
    if missing := _missing(document):
        raise ConfigError(f"{file} has no {missing}; pass what `baton load --json FILE` wrote")
    return document


def _missing(document: object) -> str:
    """What a document lacks, for people; empty when it is whole."""
    if lacks := _absent(document, NEEDED):
        return lacks
    runs = document["runs"] if isinstance(document, dict) else None
    if not isinstance(runs, list) or not runs:
        return "runs"
    return next((lacks for run in runs if (lacks := _absent(run, NEEDED_OF_RUN))), "")


def _absent(value: object, names: tuple[str, ...]) -> str:
    if not isinstance(value, dict):
        return "object with figures"
    return ", ".join(name for name in names if name not in value)
