"""Answers are the same however the kernel cuts their bytes."""

from typing import Any

import pytest

from core.clock import ManualClock
from loadtest.load.http_connection import HttpConnection

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n"
COUNTED = HEAD + b"Content-Length: 11\r\n\r\nhello world"
CLOSING = HEAD + b"Connection: close\r\ncontent-length: 11\r\n\r\nhello world"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n" + COUNTED
UNTIL_CLOSED = HEAD + b"\r\nhello world"
REFUSED = b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 2\r\n\r\n{}"


class Transport:
    """What a connection needs of asyncio's."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.is_aborted = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def abort(self) -> None:
        self.is_aborted = True

    def is_closing(self) -> bool:
        return self.is_aborted


class Sink:
    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []
        self.body = b""

    def on_head(self, status: int, now_s: float) -> None:
        self.heard.append(("head", status, now_s))

    def on_body(self, piece: bytes, now_s: float) -> None:
        assert piece
        assert now_s == 7.0
        self.body += piece

    def on_end(self, now_s: float) -> None:
        self.heard.append(("end", now_s))

    def on_broken(self, kind: str, _reason: str, now_s: float) -> None:
        self.heard.append(("broken", kind, now_s))


class Bench:
    """A connection that is open, with a request under way."""

    def __init__(self) -> None:
        self.freed = self.closed = 0
        self.transport, self.sink = Transport(), Sink()
        self.connection = HttpConnection(ManualClock(7.0), self._count_freed, self._count_closed)
        self.connection.connection_made(self.transport)  # type: ignore[arg-type]
        self.connection.send(b"request", self.sink)

    def _count_freed(self, _connection: HttpConnection) -> None:
        self.freed += 1

    def _count_closed(self, _connection: HttpConnection) -> None:
        self.closed += 1


@pytest.mark.parametrize("answer", [CHUNKED, COUNTED, INTERIM], ids=["chunked", "counted", "interim"])
def test_answer_is_whole_wherever_it_is_cut_in_two(answer: bytes) -> None:
    for position in range(1, len(answer)):
        bench = Bench()
        bench.connection.data_received(answer[:position])
        bench.connection.data_received(answer[position:])
        assert bench.sink.heard == [("head", 200, 7.0), ("end", 7.0)]
        assert (bench.sink.body, bench.freed, bench.transport.is_aborted) == (b"hello world", 1, False)


def test_answer_is_whole_byte_by_byte_and_the_connection_takes_the_next() -> None:
    bench = Bench()
    for answer in (CHUNKED, COUNTED):
        for position in range(len(answer)):
            bench.connection.data_received(answer[position : position + 1])
        bench.connection.send(b"again", bench.sink)
    assert bench.sink.body == b"hello world" * 2
    assert bench.transport.written == [b"request", b"again", b"again"]


def test_server_that_closes_is_not_asked_again() -> None:
    bench = Bench()
    bench.connection.data_received(CLOSING)
    assert bench.sink.heard[-1] == ("end", 7.0)
    assert (bench.freed, bench.transport.is_aborted, bench.connection.is_open) == (0, True, False)


def test_body_without_a_length_ends_with_the_connection() -> None:
    bench = Bench()
    bench.connection.data_received(UNTIL_CLOSED)
    assert bench.sink.heard == [("head", 200, 7.0)]
    bench.connection.connection_lost(None)
    assert (bench.sink.heard[-1], bench.sink.body, bench.closed) == (("end", 7.0), b"hello world", 1)


def test_body_without_a_length_that_breaks_is_cut_off() -> None:
    bench = Bench()
    bench.connection.data_received(UNTIL_CLOSED)
    bench.connection.connection_lost(ConnectionResetError())
    assert bench.sink.heard[-1] == ("broken", "cut_off", 7.0)


@pytest.mark.parametrize("received", [b"", CHUNKED[:10], CHUNKED[:-1], COUNTED[:-1]])
def test_lost_connection_is_an_answer_cut_off(received: bytes) -> None:
    bench = Bench()
    if received:
        bench.connection.data_received(received)
    bench.connection.connection_lost(None)
    assert (bench.sink.heard[-1], bench.closed) == (("broken", "cut_off", 7.0), 1)


def test_what_is_not_http_breaks_the_answer_once() -> None:
    bench = Bench()
    bench.connection.data_received(b"SSH-2.0-OpenSSH\r\n")
    bench.connection.connection_lost(None)
    assert bench.sink.heard == [("broken", "bad_http", 7.0)]
    assert bench.transport.is_aborted


def test_bytes_that_nobody_asked_for_close_the_connection() -> None:
    bench = Bench()
    bench.connection.data_received(COUNTED)
    bench.connection.data_received(COUNTED)
    assert (bench.transport.is_aborted, bench.sink.body) == (True, b"hello world")


def test_refusal_has_its_status_and_leaves_the_connection_open() -> None:
    bench = Bench()
    bench.connection.data_received(REFUSED)
    assert (bench.sink.heard[0], bench.sink.body, bench.freed) == (("head", 429, 7.0), b"{}", 1)


def test_request_on_a_connection_that_the_server_has_closed_is_cut_off_at_once() -> None:
    bench = Bench()
    bench.connection.data_received(COUNTED)
    bench.transport.is_aborted = True
    bench.connection.connection_lost(None)
    bench.connection.send(b"again", bench.sink)
    assert bench.sink.heard[-1] == ("broken", "cut_off", 7.0)
    assert bench.transport.written == [b"request"]


def test_closed_connection_tells_its_sink_nothing() -> None:
    bench = Bench()
    bench.connection.close()
    bench.connection.connection_lost(None)
    assert (bench.sink.heard, bench.closed, bench.transport.is_aborted) == ([], 1, True)
