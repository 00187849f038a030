import inspect
import re
from collections import Counter

import grpc
import pytest

from core import errors
from core.errors import BatonError, InternalError

TREE = [member for _, member in inspect.getmembers(errors, inspect.isclass)]
TABLE = {
    name: (int(http_status), grpc_status)
    for name, http_status, grpc_status in re.findall(r"(\w+Error) +(\d{3})  (\w+)", errors.__doc__ or "")
}


def drawn_parents() -> dict[str, str]:
    """Who stands under whom in the drawing: a name's depth is where it begins."""
    parents: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        if match := re.match(r"^ {4}([│├└─ ]*)(\w+Error)", line):
            depth, name = len(match[1]), match[2]
            path = [(d, n) for d, n in path if d < depth]
            if path:
                parents[name] = path[-1][1]
            path.append((depth, name))
    return parents


def test_drawing_has_every_class_under_its_parent() -> None:
    assert drawn_parents() == {error.__name__: error.__base__.__name__ for error in TREE if error is not BatonError}


def test_table_says_what_the_classes_say() -> None:
    said = {error.__name__: (error.http_status, error.grpc_status) for error in TREE if error is not BatonError}
    assert said == TABLE


@pytest.mark.parametrize("error", TREE)
def test_statuses_exist(error: type[BatonError]) -> None:
    assert hasattr(grpc.StatusCode, error.grpc_status)
    assert 400 <= error.http_status <= 599
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", error.code)


def test_codes_tell_the_classes_apart() -> None:
    counts = Counter(error.code for error in TREE if error is not BatonError)
    assert set(counts.values()) == {1}
    assert BatonError.code == InternalError.code  # an error of no class is our bug


def test_error_carries_its_message_and_parameter() -> None:
    error = errors.InvalidRequestError("top_p is 2", param="top_p")
    assert (str(error), error.message, error.param) == ("top_p is 2", "top_p is 2", "top_p")
    assert InternalError("x").param is None
