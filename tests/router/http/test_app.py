import re

import httpx
import openai
import pytest

from tests.router.http.fakes import FakeDispatcher
from tests.router.http.serving import MODEL


def test_models_are_listed_and_retrieved(sdk: openai.OpenAI) -> None:
    (model,) = sdk.models.list()
    assert (model.id, model.object, model.owned_by) == (MODEL, "model", "baton")
    assert sdk.models.retrieve(MODEL) == model
    with pytest.raises(openai.NotFoundError) as caught:
        sdk.models.retrieve("gpt-5")
    assert caught.value.code == "model_not_found"


def test_health_does_not_depend_on_workers(http: httpx.Client, dispatcher: FakeDispatcher) -> None:
    dispatcher.unready = "no decode worker is attached"
    assert http.get("/health").status_code == 200
    refused = http.get("/ready")
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "1"
    assert refused.json()["error"]["message"] == "no decode worker is attached"
    dispatcher.unready = None
    assert http.get("/ready").json() == {"status": "ready"}


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/docs/oauth2-redirect"])
def test_no_page_has_scripts_from_elsewhere(http: httpx.Client, path: str) -> None:
    refused = http.get(path)
    assert refused.status_code == 404
    assert "see /openapi.json for what does" in refused.json()["error"]["message"]
    assert "<script" not in refused.text


def test_openapi_document_describes_the_chat_route(http: httpx.Client) -> None:
    response = http.get("/openapi.json")
    document = response.json()
    operation = document["paths"]["/v1/chat/completions"]["post"]
    body = operation["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/ChatCompletionRequest"}
    assert set(operation["responses"]) == {
        *("200", "204", "400", "401", "403", "404", "413", "422", "429", "500", "503", "504")
    }
    assert set(operation["responses"]["200"]["content"]) == {"application/json", "text/event-stream"}
    schemas = document["components"]["schemas"]
    assert set(re.findall(r'"#/components/schemas/(\w+)"', response.text)) <= set(schemas)
    assert "#/$defs" not in response.text
