"""Workers of two ranks and unequal blocks, with a tiny model: answers, commands, deaths. The last test stops them."""

import asyncio
import json
from pathlib import Path
from typing import Any

import openai
import pytest

from deploy.processes import wait_ended
from router.text.tokenizer import TextCodec
from tests.cluster.served import WAIT_S, ServedCluster, baton
from tests.oracles import greedy_tokens

pytestmark = pytest.mark.cluster

MESSAGES: list[Any] = [{"role": "user", "content": "Tell me about the sea. " * 8}]
REQUEST: dict[str, Any] = {
    "model": "tiny",
    "messages": MESSAGES,
    "temperature": 0,
    "extra_body": {"ignore_eos": True},
}


def sent_by(cluster: ServedCluster, name: str) -> list[dict[str, Any]]:
    """What a worker has sent to each peer."""
    (worker,) = [w for w in cluster.status()["workers"] if w["hello"]["endpoint"]["worker"]["name"] == name]
    sent: list[dict[str, Any]] = worker["transfers"]["sent"]
    return sent


def greedy_answer(model_dir: Path, max_tokens: int) -> str:
    """What transformers answers."""
    codec = TextCodec.load(model_dir)
    return codec.decode(greedy_tokens(model_dir, codec.encode_chat(MESSAGES), max_tokens))


def test_greedy_answer_is_that_of_transformers(shard_cluster: ServedCluster, even_text_model_dir: Path) -> None:
    with shard_cluster.sdk() as client:
        answer = client.chat.completions.create(**REQUEST, max_tokens=24)
    assert answer.choices[0].message.content == greedy_answer(even_text_model_dir, 24)
    shard_cluster.wait_until_all_free()


def test_status_says_how_many_ranks_share_what(shard_cluster: ServedCluster) -> None:
    workers = shard_cluster.status()["workers"]
    assert {worker["hello"]["topology"]["tensor_parallel_size"] for worker in workers} == {2}
    finished = baton("status", "--port", str(shard_cluster.port))
    assert finished.stdout.count(" 2 T ") == 2


def test_status_says_what_has_moved_between_whom(shard_cluster: ServedCluster) -> None:
    with shard_cluster.sdk() as client:
        client.chat.completions.create(**REQUEST, max_tokens=2)
    num_sent = shard_cluster.load_of("prefill-0")["handoffs_sent"]

    def has_told(_loads: object) -> bool:
        return sum(pair["num_handoffs"] for pair in sent_by(shard_cluster, "prefill-0")) == num_sent

    shard_cluster.wait_until(has_told)
    (pair,) = sent_by(shard_cluster, "prefill-0")
    assert (pair["transport"], pair["direction"], pair["failures"]) == ("nixl", "push", {})
    assert pair["num_bytes"] > 0
    shown = baton("status", "--port", str(shard_cluster.port)).stdout.splitlines()[-1].split()
    assert shown[:5] == ["prefill-0", "decode-0", f"nixl/{pair['path']}", "push", str(num_sent)]


def test_experts_are_counted_and_a_rebalancing_that_cannot_be_is_explained(shard_cluster: ServedCluster) -> None:
    port = ("--port", str(shard_cluster.port))
    finished = baton("experts", "--json", *port)
    assert finished.returncode == 0, finished.stderr
    reports = json.loads(finished.stdout)
    assert list(reports) == ["decode-0", "prefill-0"]
    num_prompt_tokens = shard_cluster.total("prefill", "prompt_tokens_computed")
    assert sum(reports["prefill-0"]["layers"][0]["tokens"]) == 2 * num_prompt_tokens
    table = baton("experts", "decode-0", *port)
    assert "worker decode-0: tokens per expert" in table.stdout
    assert "prefill-0" not in table.stdout
    refused = baton("experts", "decode-0", "--rebalance", *port)
    assert refused.returncode == 1
    assert "not rebalanced: decode-0: there are no experts to balance" in refused.stderr
    unknown = baton("experts", "decode-7", *port)
    assert unknown.returncode == 2
    assert unknown.stderr == "error: no worker 'decode-7' is attached; there are: decode-0, prefill-0\n"


async def test_killed_follower_takes_its_worker_with_it_and_costs_no_token(
    shard_cluster: ServedCluster, even_text_model_dir: Path
) -> None:
    """Ray starts both ranks again, they find each other, and the answer goes on there."""
    leader, victim = shard_cluster.rank_processes("decode-0")
    async with openai.AsyncOpenAI(base_url=f"{shard_cluster.url}/v1", api_key="none", max_retries=0) as client:
        pieces: list[str] = []
        async for chunk in await client.chat.completions.create(**REQUEST, max_tokens=30, stream=True):
            if len(pieces) == 5:
                victim.kill()
            pieces.append(chunk.choices[0].delta.content or "")
    assert "".join(pieces) == greedy_answer(even_text_model_dir, 30)
    await asyncio.to_thread(shard_cluster.wait_until, lambda loads: len(loads) == 2)
    assert not {leader, victim} & set(shard_cluster.rank_processes("decode-0"))
    shard_cluster.wait_until_all_free()


def test_killed_leader_takes_its_follower_with_it(shard_cluster: ServedCluster) -> None:
    leader, follower = shard_cluster.rank_processes("prefill-0")
    leader.kill()
    assert wait_ended([follower], WAIT_S) == []
    shard_cluster.wait_until(lambda loads: len(loads) == 2)
    with shard_cluster.sdk() as client:
        answer = client.chat.completions.create(**REQUEST, max_tokens=4)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 4


def test_down_leaves_no_rank_behind(shard_cluster: ServedCluster) -> None:
    def down() -> None:
        finished = baton("down", "--port", str(shard_cluster.port))
        assert finished.returncode == 0, finished.stderr
        assert "had to be killed" not in finished.stdout

    assert shard_cluster.stop_with(down) == []
