"""What HTTP clients see of a router that leaves."""

import asyncio

import httpx
import pytest
from starlette.responses import PlainTextResponse

from router.departure import RouterDeparture
from router.http.draining import DrainingApp
from router.http.server import serve_http
from tests.router.http.fakes import WAIT_S
from tests.router.http.test_server import SlowApp, client, listen, url


async def test_router_that_serves_is_not_touched() -> None:
    listener = listen()
    app = DrainingApp(PlainTextResponse("ok"), RouterDeparture(WAIT_S))
    async with serve_http(app, listener), client() as http:
        answer = await http.get(url(listener) + "ready")
        assert (answer.text, "connection" in answer.headers) == ("ok", False)


async def test_router_that_leaves_is_not_ready_and_closes_connections_with_their_next_answer() -> None:
    listener, departure = listen(), RouterDeparture(WAIT_S)
    async with serve_http(DrainingApp(PlainTextResponse("ok"), departure), listener), client() as http:
        await http.get(url(listener))
        departure.order()
        ready = await http.get(url(listener) + "ready")
        assert (ready.status_code, ready.json()["error"]["code"]) == (503, "draining")
        assert (ready.headers["connection"], "retry-after" in ready.headers) == ("close", True)
        answer = await http.get(url(listener))
        assert (answer.text, answer.headers["connection"]) == ("ok", "close")


async def test_server_that_stops_listening_serves_the_connections_it_has() -> None:
    app, listener = SlowApp(), listen()
    app.go_on.set()
    async with serve_http(app, listener) as stop_listening, client() as http:
        address = url(listener)
        assert (await http.get(address)).text == "ok"
        stop_listening()
        assert (await http.get(address)).text == "ok"
        await asyncio.sleep(0)  # the event loop closes the socket in its next round
        async with client() as other:
            with pytest.raises(httpx.ConnectError):
                await other.get(address)
