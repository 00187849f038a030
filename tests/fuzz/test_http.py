"""The HTTP API against its own OpenAPI document: schemathesis makes requests that keep to it, and others."""

from typing import Any

import pytest
import requests
import schemathesis
from schemathesis import Case, CheckContext, GenerationMode, Response
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from tests.fuzz.cases import try_cases
from tests.router.http.serving import OPERATOR_KEY, Api

NUM_POSTS = 6  # chat, and orders about roles


def operations(api: Api) -> list[Any]:
    document = requests.get(f"{api.url}/openapi.json", timeout=10).json()
    # The states of the dashboard have no input, and no end.
    schema = schemathesis.openapi.from_dict(document).exclude(path="/dashboard/events")
    return [result.ok() for result in schema.get_all_operations()]


def wrong_data_is_refused(context: CheckContext, response: Response, case: Case) -> bool | None:
    """schemathesis' own check, to which 413 is no refusal."""
    return response.status_code == 413 or negative_data_rejection(context, response, case)


CHECKS = [
    not_a_server_error,
    wrong_data_is_refused,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


def can_be_tried(operation: Any, mode: GenerationMode) -> bool:  # noqa: ANN401 - of a version of OpenAPI
    """Any text will do as a part of a path, so only bodies can be wrong."""
    return bool(operation.body) or (mode is GenerationMode.POSITIVE and any(operation.iter_parameters()))


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_no_request_is_answered_in_a_way_that_the_document_does_not_know(api: Api, mode: GenerationMode) -> None:
    with requests.Session() as session:
        session.trust_env = False
        session.headers["authorization"] = f"Bearer {OPERATOR_KEY}"

        def check(case: Case) -> None:
            case.call_and_validate(base_url=api.url, session=session, checks=CHECKS, timeout=10)

        tried = [operation for operation in operations(api) if can_be_tried(operation, mode)]
        assert len(tried) >= NUM_POSTS
        for operation in tried:
            try_cases(f"{operation.label} ({mode.value})", operation.as_strategy(generation_mode=mode), check)
