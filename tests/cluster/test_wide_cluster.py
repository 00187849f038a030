"""Two prefill and two decode workers with a tiny model: spreading, releasing, surviving. The last test stops them."""

import asyncio
import random

import httpx
import openai
import pytest

from core.processes import has_ended
from tests.cluster.served import ServedCluster, baton

pytestmark = pytest.mark.cluster

EVERYTHING = {
    "temperature": 1.2,
    "top_k": -1,  # of a flat distribution rounding may decide which token is the last that top-k keeps
    "top_p": 1,
    "seed": 3,
    "repetition_penalty": 1.2,
    "presence_penalty": 0.4,
    "frequency_penalty": 0.4,
    "bad_words": ["e"],
    "logprobs": True,
}
"""Sampling that looks at all tokens so far."""


def body(number: int, max_tokens: int, **fields: object) -> dict[str, object]:
    message = {"role": "user", "content": f"request {number} " * (1 + number % 7)}
    return {"model": "tiny", "messages": [message], "max_tokens": max_tokens, "temperature": 0, **fields}


async def ask(client: httpx.AsyncClient, **request: object) -> str:
    answer = await client.post("/v1/chat/completions", json=request)
    assert answer.status_code == 200, answer.text
    text: str = answer.json()["choices"][0]["message"]["content"]
    return text


async def ask_and_leave(client: httpx.AsyncClient, num_events: int, **request: object) -> None:
    """Streams an answer and hangs up after some events."""
    async with client.stream("POST", "/v1/chat/completions", json={**request, "stream": True}) as answer:
        events = answer.aiter_lines()
        for _ in range(num_events):
            await anext(events, None)


async def test_two_hundred_requests_leave_every_block_free(wide_cluster: ServedCluster) -> None:
    """Some have a one-token answer, some are cancelled at a random moment, some preempt each other."""
    choice = random.Random(7)  # noqa: S311 - not for secrets
    limits = httpx.Limits(max_connections=24)
    async with httpx.AsyncClient(base_url=wide_cluster.url, timeout=120, limits=limits, trust_env=False) as client:

        async def one(number: int) -> None:
            kind = choice.random()
            if kind < 0.2:
                await ask(client, **body(number, 1))
            elif kind < 0.5:
                await ask_and_leave(client, choice.randrange(6), **body(number, 300, ignore_eos=True))
            else:
                await ask(client, **body(number, choice.randrange(2, 60)))

        await asyncio.gather(*(one(number) for number in range(200)))
    loads = wide_cluster.wait_until_all_free()
    assert all(load["blocks_quarantined"] == load["blocks_leased"] == 0 for load in loads)
    assert wide_cluster.status()["active_requests"] == 0


async def test_work_spreads_over_all_workers(wide_cluster: ServedCluster) -> None:
    before = [load["handoffs_sent"] + load["handoffs_received"] for load in wide_cluster.wait_until_all_free()]
    async with httpx.AsyncClient(base_url=wide_cluster.url, timeout=120, trust_env=False) as client:
        # What somebody asked before goes where it is cached, so all these are new to everybody.
        fresh = [body(number, 40, ignore_eos=True, cache_salt=f"spreads {number}") for number in range(16)]
        await asyncio.gather(*(ask(client, **request) for request in fresh))
    after = [load["handoffs_sent"] + load["handoffs_received"] for load in wide_cluster.wait_until_all_free()]
    assert all(now - then >= 4 for then, now in zip(before, after, strict=True)), (before, after)


async def test_answers_do_not_depend_on_what_runs_beside_them(wide_cluster: ServedCluster) -> None:
    async with httpx.AsyncClient(base_url=wide_cluster.url, timeout=120, trust_env=False) as client:
        kinds: tuple[dict[str, object], ...] = ({}, EVERYTHING)
        requests = [body(number, 30, **{"ignore_eos": True, **kinds[number % 2]}) for number in range(12)]
        together = await asyncio.gather(*(ask(client, **request) for request in requests))
        alone = [await ask(client, **request) for request in requests]
    assert together == alone


async def test_disconnect_stops_the_work(wide_cluster: ServedCluster) -> None:
    """The answer would go on for 1,500 tokens; what is generated after the client left is far less."""
    async with httpx.AsyncClient(base_url=wide_cluster.url, timeout=120, trust_env=False) as client:
        before = wide_cluster.total("decode", "decode_tokens_computed")
        await ask_and_leave(client, 4, **body(1, 1500, ignore_eos=True))
    loads = wide_cluster.wait_until_all_free()
    assert all(load["running_sequences"] == 0 for load in loads)
    assert wide_cluster.total("decode", "decode_tokens_computed") - before < 1400


async def test_killed_decode_worker_costs_a_pause_and_no_token(wide_cluster: ServedCluster) -> None:
    """Streams run on both decode workers, half of them greedy; one of the workers dies under them."""
    kinds: tuple[dict[str, object], ...] = ({}, {}, EVERYTHING, EVERYTHING)
    requests = [body(number, 400, **{"ignore_eos": True, **kind}) for number, kind in enumerate(kinds)]
    async with httpx.AsyncClient(base_url=wide_cluster.url, timeout=120, trust_env=False) as client:
        undisturbed = await asyncio.gather(*(ask(client, **request) for request in requests))
    victim = wide_cluster.worker_process("decode-1")
    before = wide_cluster.load_of("decode-0")["handoffs_received"]
    async with openai.AsyncOpenAI(base_url=f"{wide_cluster.url}/v1", api_key="none", max_retries=0) as client:
        half_way = asyncio.Barrier(len(requests) + 1)

        async def stream(request: dict[str, object]) -> str:
            pieces = []
            chunks = await client.chat.completions.create(
                model="tiny", messages=request["messages"], stream=True, extra_body=request
            )
            async for chunk in chunks:
                if len(pieces) == 5:
                    await half_way.wait()
                pieces.append(chunk.choices[0].delta.content or "")
            return "".join(pieces)

        answers = asyncio.gather(*(stream(request) for request in requests))
        await half_way.wait()
        victim.kill()
        assert await answers == undisturbed
    # Two of the four streams ran on the victim; the survivor took over theirs in the middle.
    assert wide_cluster.load_of("decode-0")["handoffs_received"] == before + 4


def test_ray_replaces_the_killed_worker(wide_cluster: ServedCluster) -> None:
    wide_cluster.wait_until(lambda loads: len(loads) == 4)
    names = [worker["hello"]["endpoint"]["worker"]["name"] for worker in wide_cluster.status()["workers"]]
    assert names == ["decode-0", "decode-1", "prefill-0", "prefill-1"]
    with wide_cluster.sdk() as client:
        for number in range(4):
            answer = client.chat.completions.create(**body(number, 8))  # type: ignore[call-overload]
            assert answer.choices[0].finish_reason in {"stop", "length"}
    wide_cluster.wait_until_all_free()


def test_worker_that_hangs_is_killed_and_replaced(wide_cluster: ServedCluster) -> None:
    def incarnation() -> int:
        ids = [worker["hello"]["endpoint"]["worker"] for worker in wide_cluster.status()["workers"]]
        return next((int(each["incarnation"]) for each in ids if each["name"] == "prefill-1"), 0)

    victim, before = wide_cluster.worker_process("prefill-1"), incarnation()
    victim.suspend()
    wide_cluster.wait_until(lambda _loads: incarnation() > before)
    assert has_ended(victim)
    with wide_cluster.sdk() as client:
        answer = client.chat.completions.create(**body(1, 8))  # type: ignore[call-overload]
    assert answer.choices[0].finish_reason in {"stop", "length"}
    wide_cluster.wait_until_all_free()


def test_down_stops_everything(wide_cluster: ServedCluster) -> None:
    def down() -> None:
        finished = baton("down", "--port", str(wide_cluster.port))
        assert finished.returncode == 0, finished.stderr
        assert wide_cluster.url in finished.stdout

    assert wide_cluster.stop_with(down) == []
