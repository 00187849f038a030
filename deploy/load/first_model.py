"""Which model a server has, where nobody says which one to ask."""

import ssl
from collections.abc import Mapping

import httpx

from core.errors import UnavailableError
from loadtest.load.exchange import refusal_message
from loadtest.load.target import Target

TIMEOUT_S = 10.0


def first_model(target: Target, headers: Mapping[str, str], verify: ssl.SSLContext | bool) -> str:
    """The id of the first model that a server lists.

    Args:
        target: the server.
        headers: to show.
        verify: of TLS, for httpx.

    Raises:
        UnavailableError: it does not answer, refuses, or lists none.
    """
    url = f"{target.url}/models"
    try:
        answer = httpx.get(url, headers=dict(headers), timeout=TIMEOUT_S, verify=verify, trust_env=False)
        if answer.is_success:
            return str(answer.json()["data"][0]["id"])
    except httpx.HTTPError as error:
        raise UnavailableError(f"nobody answers at {url}: {error}; start a server, or check the URL") from error
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise UnavailableError(f"{url} lists no model; name one with --model") from error
    raise UnavailableError(f"{url} says {answer.status_code}: {refusal_message(answer.content)}")
