import pytest

from core.errors import BodyTooLargeError, CancelledRequestError, DeadlineError
from router.http import body as body_module
from router.http.body import DRAIN_BYTES, read_json_object

CHUNK = b"x" * 65536


class Client:
    """An ASGI `receive` whose body never ends; counts what was taken of it."""

    def __init__(self) -> None:
        self.num_chunks = 0

    async def receive(self) -> dict[str, object]:
        self.num_chunks += 1
        return {"type": "http.request", "body": CHUNK, "more_body": True}


def scope(**headers: str) -> dict[str, object]:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "headers": raw}


@pytest.mark.parametrize("headers", [{}, {"content_length": "9" * 18}])
async def test_endless_body_is_refused_after_a_bounded_rest(headers: dict[str, str]) -> None:
    client = Client()
    with pytest.raises(BodyTooLargeError, match="at most 1000"):
        await read_json_object(scope(**headers), client.receive, max_bytes=1000, timeout_s=60)
    assert client.num_chunks * len(CHUNK) == DRAIN_BYTES


async def test_declared_body_is_refused_unread_when_the_client_waits_for_100_continue() -> None:
    client = Client()
    headers = scope(content_length="5000", expect="100-continue")
    with pytest.raises(BodyTooLargeError, match="5000 bytes"):
        await read_json_object(headers, client.receive, max_bytes=1000, timeout_s=60)
    assert client.num_chunks == 0


async def test_body_that_stalls_is_given_up() -> None:
    async def receive() -> dict[str, object]:
        raise TimeoutError

    with pytest.raises(DeadlineError, match="did not arrive within 5 s"):
        await read_json_object(scope(), receive, max_bytes=1000, timeout_s=5)


async def test_refused_body_that_stalls_is_still_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_module, "DRAIN_TIMEOUT_S", -1.0)
    with pytest.raises(BodyTooLargeError):
        await read_json_object(scope(content_length="5000"), Client().receive, max_bytes=1000, timeout_s=5)


async def test_client_that_leaves_in_mid_body_is_not_answered() -> None:
    async def receive() -> dict[str, object]:
        return {"type": "http.disconnect"}

    with pytest.raises(CancelledRequestError):
        await read_json_object(scope(), receive, max_bytes=1000, timeout_s=5)
