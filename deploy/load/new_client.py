"""The client of a run, as its settings say."""

import ssl
from collections.abc import Mapping
from types import MappingProxyType

from loadtest.load.chat_body import ChatBodies
from loadtest.load.client import LoadClient
from loadtest.load.load_clock import LoadClock
from loadtest.load.settings import LoadSettings
from loadtest.load.target import Target


def new_client(
    target: Target,
    model: str,
    settings: LoadSettings,
    clock: LoadClock,
    examples: dict[str, str],
    *,
    headers: Mapping[str, str] = MappingProxyType({}),
    tls: ssl.SSLContext | None = None,
) -> LoadClient:
    """Makes it; see `run.MakeAsker`.

    Args:
        target: who is asked.
        model: its name there.
        settings: how.
        clock: of the records.
        examples: gets what was said of the first failure of each kind.
        headers: of every request.
        tls: how the server is verified, over TLS.
    """
    return LoadClient(
        target,
        headers,
        ChatBodies(model, settings.max_tokens_field, settings.body_fields()),
        tls=tls,
        clock=clock,
        examples=examples,
        max_open=settings.max_open,
        timeout_s=settings.timeout_s,
    )
