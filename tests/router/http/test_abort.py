import httpx
import pytest

from core.errors import UnknownRequestError
from tests.router.http.fakes import FakeDispatcher


@pytest.mark.parametrize("completion_id", ["chatcmpl-r1", "r1"])
def test_answer_is_aborted_by_its_id_or_its_requests(
    http: httpx.Client, dispatcher: FakeDispatcher, completion_id: str
) -> None:
    response = http.delete(f"/v1/chat/completions/{completion_id}")
    assert (response.status_code, dispatcher.aborted) == (200, [("r1", "")])
    assert response.json() == {"id": completion_id, "object": "chat.completion.deleted", "deleted": True}


def test_unknown_answer_is_not_found(http: httpx.Client, dispatcher: FakeDispatcher) -> None:
    dispatcher.refusal = UnknownRequestError("no request 'r1'", param="request_id")
    response = http.delete("/v1/chat/completions/r1")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "request_not_found"
