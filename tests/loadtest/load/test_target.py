import pytest

from core.errors import ConfigError
from loadtest.load.target import Target, chat_head, parse_headers


@pytest.mark.parametrize(
    ("url", "target", "shown"),
    [
        ("http://127.0.0.1:8000", Target(False, "127.0.0.1", 8000, "/v1"), "http://127.0.0.1:8000/v1"),
        ("http://127.0.0.1:8000/", Target(False, "127.0.0.1", 8000, "/v1"), "http://127.0.0.1:8000/v1"),
        ("https://host/v1", Target(True, "host", 443, "/v1"), "https://host:443/v1"),
        ("https://host:8443/llm/v1/", Target(True, "host", 8443, "/llm/v1"), "https://host:8443/llm/v1"),
        ("http://[::1]:80/v1", Target(False, "::1", 80, "/v1"), "http://[::1]:80/v1"),
    ],
)
def test_api_is_found_in_a_url(url: str, target: Target, shown: str) -> None:
    assert Target.parse(url) == target
    assert target.url == shown


@pytest.mark.parametrize(
    "url", ["", "localhost:8000", "ftp://host", "http://", "http://host:port", "http://höst", "http://host:70000"]
)
def test_no_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="write it like http://127"):
        Target.parse(url)


@pytest.mark.parametrize("url", ["http://me:secret@host/v1", "http://host/v1?key=secret", "http://host/v1#secret"])
def test_url_with_more_than_an_address_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Target.parse(url)
    assert "secret" not in caught.value.message


def test_head_ends_where_the_content_length_begins() -> None:
    head = chat_head(Target.parse("https://host/llm"), {"authorization": "Bearer k"})
    assert head.startswith(b"POST /llm/chat/completions HTTP/1.1\r\nhost: host:443\r\n")
    assert b"\r\nauthorization: Bearer k\r\n" in head
    assert head.endswith(b"\r\ncontent-length: ")


def test_headers_are_read() -> None:
    assert parse_headers(["X-Tenant: blue", "a:b:c"]) == {"x-tenant": "blue", "a": "b:c"}


@pytest.mark.parametrize(
    "text", ["", "x", ": y", "a b: c", "x: a\r\ny: b", "x: ü", "Host: other", "content-length: 3"]
)
def test_header_that_is_none_or_the_clients_own_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--header"):
        parse_headers([text])
