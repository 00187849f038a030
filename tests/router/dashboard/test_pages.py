import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

import router.dashboard
from router.dashboard.pages import MEDIA_TYPES, PAGE
from tests.router.dashboard.fakes import DashboardWorld

FOLDER = Path(router.dashboard.__file__).parent / "page"
MAX_BYTES = 60_000
FOREIGN = re.compile(r"https?://(?!www\.w3\.org/2000/svg)")


@pytest_asyncio.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    world = DashboardWorld()
    transport = httpx.ASGITransport(world.app(world.feed()))
    async with httpx.AsyncClient(transport=transport, base_url="http://router") as client:
        yield client


def test_every_file_of_the_page_is_served_and_all_are_small() -> None:
    files = list(FOLDER.iterdir())
    assert {file.name for file in files} == set(MEDIA_TYPES)
    assert sum(file.stat().st_size for file in files) < MAX_BYTES


@pytest.mark.parametrize("name", MEDIA_TYPES)
async def test_file_has_its_type_and_may_run_nothing_foreign(http: httpx.AsyncClient, name: str) -> None:
    answer = await http.get("/dashboard" if name == PAGE else f"/dashboard/{name}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, MEDIA_TYPES[name])
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["form-action"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert not FOREIGN.search(answer.text)


@pytest.mark.parametrize("name", ["state.py", "..%2Fstate.py", "%2e%2e/feed.py", "page"])
async def test_nothing_else_is_served(http: httpx.AsyncClient, name: str) -> None:
    answer = await http.get(f"/dashboard/{name}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
