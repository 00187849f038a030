"""Heads of requests that are too large or too slow, on real sockets."""

import json
import socket
import threading

import httpx
import pytest

from router.http import head_limits
from router.http.head_limits import MAX_HEAD_BYTES, MAX_HEADERS
from tests.router.http.fakes import WAIT_S
from tests.router.http.serving import Api

START = b"GET /health HTTP/1.1\r\nHost: x\r\n"


def connect(api: Api) -> socket.socket:
    url = httpx.URL(api.url)
    return socket.create_connection((url.host, url.port), timeout=WAIT_S)


def answer_to(api: Api, *pieces: bytes) -> bytes:
    """Everything the server sends until it closes the connection."""
    with connect(api) as connection:
        # From another thread: a server that closes early leaves some of it unsent.
        sender = threading.Thread(target=send_all, args=(connection, pieces))
        sender.start()
        received = b""
        try:
            while piece := connection.recv(65536):
                received += piece
        except ConnectionResetError:
            pass  # what was unread when the server closed
        sender.join(WAIT_S)
    return received


def send_all(connection: socket.socket, pieces: tuple[bytes, ...]) -> None:
    for piece in pieces:
        try:
            connection.sendall(piece)
        except OSError:
            return


def headers(number: int) -> bytes:
    return b"".join(b"X-%d: y\r\n" % each for each in range(number))


def test_head_at_the_limits_is_accepted(api: Api) -> None:
    pieces = START + headers(MAX_HEADERS - 3) + b"Connection: close\r\n"
    long = b"X: " + b"y" * (MAX_HEAD_BYTES - len(pieces) - 100) + b"\r\n"
    assert answer_to(api, pieces + long + b"\r\n").startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "pieces",
    [
        [START + headers(MAX_HEADERS) + b"\r\n"],
        [START, *(headers(10) for _ in range(20))],
        [START, b"X: " + b"y" * MAX_HEAD_BYTES + b"\r\n\r\n"],
        [START + b"X: ", *[b"y" * 10_000] * 10_000],  # one header that never ends
        [b"GET /" + b"y" * MAX_HEAD_BYTES + b" HTTP/1.1\r\n\r\n"],
        [b"GET /", *[b"y" * 10_000] * 10_000],
    ],
    ids=["headers", "headers in pieces", "header", "endless header", "target", "endless target"],
)
def test_head_that_is_too_large_is_refused_and_the_connection_closed(api: Api, pieces: list[bytes]) -> None:
    answer = answer_to(api, *pieces)
    if answer or sum(map(len, pieces)) < 10_000:  # of more, a reset may overtake the answer
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 431 ")
        assert json.loads(body)["error"]["type"] == "invalid_request_error"
    with httpx.Client(base_url=api.url, trust_env=False) as client:
        assert client.get("/health").status_code == 200


@pytest.mark.parametrize("sent", [b"", b"G", START, b"\r\n"])
def test_head_that_does_not_come_ends_the_connection(api: Api, monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(head_limits, "HEAD_TIMEOUT_S", 0.05)
    assert answer_to(api, sent) == b""


def test_body_may_come_later_than_a_head(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_limits, "HEAD_TIMEOUT_S", 1.0)  # from the connection: a busy machine reads a head late
    with connect(api) as connection:
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{")
        assert answer_to(api, b"") == b""  # a head that began later has had its time
        connection.sendall(b"}")
        assert connection.recv(65536).startswith(b"HTTP/1.1 400 ")


def test_connection_serves_several_requests(api: Api) -> None:
    last = START + b"Connection: close\r\n\r\n"
    assert answer_to(api, START + b"\r\n", START + b"\r\n" + last).count(b"HTTP/1.1 200 ") == 3
