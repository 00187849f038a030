import asyncio

import httpx
from starlette.types import Receive, Scope, Send

from router.http.calls_at_once import CallsAtOnce
from tests.router.dispatch.loop_time import settle


class Gate:
    """An application that answers when it is let."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.num_begun = 0

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        self.num_begun += 1
        await self.open.wait()
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})


async def test_calls_beyond_the_bound_are_refused_until_others_have_ended() -> None:
    gate = Gate()
    transport = httpx.ASGITransport(CallsAtOnce(gate, max_calls=2))
    async with httpx.AsyncClient(transport=transport, base_url="http://router") as client:
        calls = [asyncio.create_task(client.post("/v1/chat/completions", json={})) for _ in range(2)]
        await settle()
        assert gate.num_begun == 2
        refused = await client.post("/v1/chat/completions", json={})
        assert (refused.status_code, refused.headers["retry-after"], refused.headers["connection"]) == (
            429,
            "1",
            "close",
        )
        assert refused.json()["error"]["message"].startswith("2 calls are open at this router")
        health = asyncio.create_task(client.get("/health"))
        gate.open.set()
        assert [(await call).status_code for call in (*calls, health)] == [204, 204, 204]
        assert (await client.post("/v1/chat/completions", json={})).status_code == 204
