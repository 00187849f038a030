"""The demo model behind one prefill and one decode worker, as a user finds it. The last test stops the cluster."""

import asyncio
from pathlib import Path

import grpc
import httpx
import openai
import pytest
from baton.v1 import common_pb2, generate_pb2, generate_pb2_grpc

from router.text.tokenizer import TextCodec
from tests.cluster.served import ServedCluster, baton
from tests.oracles import greedy_tokens, logits

pytestmark = [pytest.mark.cluster, pytest.mark.demo]

QUESTIONS = (
    "What is the capital of France?",
    "Name three colours.",
    "Write one sentence about the sea.",
    "How many legs does a spider have?",
)


def chat(question: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}]


def test_start_says_what_happens_and_answers_the_first_question(demo_cluster: ServedCluster) -> None:
    output = "".join(demo_cluster.output)
    assert "The capital of France is Paris." in output
    assert f"curl {demo_cluster.url}/v1/chat/completions" in output
    assert "prefill-0 serves" in output
    assert "decode-0 serves" in output


@pytest.mark.parametrize("question", QUESTIONS)
def test_greedy_answer_is_token_for_token_that_of_transformers(
    demo_cluster: ServedCluster, demo_model_dir: Path, demo_codec: TextCodec, question: str
) -> None:
    prompt = demo_codec.encode_chat(chat(question))
    request = generate_pb2.GenerateRequest(
        model="demo",
        tokens=generate_pb2.TokenIds(ids=prompt),
        max_tokens=24,
        sampling=generate_pb2.SamplingOptions(temperature=0),
    )
    with grpc.insecure_channel(demo_cluster.grpc_address) as channel:
        answers = list(generate_pb2_grpc.GenerateServiceStub(channel).Generate(request, timeout=60))
    token_ids = [token_id for answer in answers for token_id in answer.token_ids]
    assert token_ids == greedy_tokens(demo_model_dir, prompt, 24)
    assert "".join(answer.text for answer in answers) == demo_codec.decode(token_ids)
    usage = answers[-1].usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (len(prompt), len(token_ids))
    assert answers[-1].finish_reason != common_pb2.FINISH_REASON_UNSPECIFIED


def test_decode_worker_computes_no_prompt_token_and_prefill_worker_no_other(demo_cluster: ServedCluster) -> None:
    before = demo_cluster.total("decode", "decode_tokens_computed")
    with demo_cluster.sdk() as client:
        answer = client.chat.completions.create(
            model="demo", messages=chat("Tell me a story."), max_tokens=16, temperature=0
        )
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 16
    demo_cluster.wait_until_all_free()
    assert demo_cluster.total("decode", "prompt_tokens_computed") == 0
    assert demo_cluster.total("prefill", "decode_tokens_computed") == 0
    assert demo_cluster.total("decode", "decode_tokens_computed") - before == 15
    (prefill,), (decode,) = demo_cluster.loads("prefill"), demo_cluster.loads("decode")
    assert prefill["handoffs_sent"] == decode["handoffs_received"] > 0
    assert prefill["handoff_bytes"] > 0


def test_sdk_streams_with_usage(demo_cluster: ServedCluster) -> None:
    with demo_cluster.sdk() as client:
        stream = client.chat.completions.create(
            model="demo",
            messages=chat(QUESTIONS[0]),
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "The capital of France is Paris."
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 8


def test_second_answer_to_a_prompt_is_the_first_and_says_what_was_cached(demo_cluster: ServedCluster) -> None:
    def answer(salt: str) -> tuple[str | None, int]:
        with demo_cluster.sdk() as client:
            completion = client.chat.completions.create(
                model="demo",
                messages=chat("Count from one to twenty, and say after each number whether it is even."),
                max_tokens=24,
                temperature=0,
                extra_body={"cache_salt": salt},
            )
        assert completion.usage is not None
        assert completion.usage.prompt_tokens_details is not None
        return completion.choices[0].message.content, completion.usage.prompt_tokens_details.cached_tokens or 0

    saved = demo_cluster.total("prefill", "handoff_bytes_saved")
    (cold, none), (warm, found), (_, of_another) = answer("mine"), answer("mine"), answer("another's")
    assert warm == cold
    assert (none, of_another) == (0, 0)
    assert found >= 16
    demo_cluster.wait_until(lambda loads: sum(load["handoff_bytes_saved"] for load in loads) > saved)
    shown = baton("status", "--port", str(demo_cluster.port))
    assert "hit rate" in shown.stdout
    assert "%" in shown.stdout


async def test_sixteen_streams_at_once_answer_as_each_alone(demo_cluster: ServedCluster) -> None:
    async with openai.AsyncOpenAI(base_url=f"{demo_cluster.url}/v1", api_key="none", max_retries=0) as client:

        async def answer(number: int) -> str:
            stream = await client.chat.completions.create(
                model="demo",
                messages=chat(f"{QUESTIONS[number % len(QUESTIONS)]} Answer number {number}."),
                max_tokens=10 + number,
                temperature=0,
                stream=True,
            )
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        together = await asyncio.gather(*(answer(number) for number in range(16)))
        alone = [await answer(number) for number in range(16)]
    assert together == alone


def test_same_seed_same_answer_and_other_seed_another(demo_cluster: ServedCluster) -> None:
    def sampled(seed: int) -> str | None:
        with demo_cluster.sdk() as client:
            answer = client.chat.completions.create(
                model="demo", messages=chat("Invent a name."), max_tokens=16, temperature=1.5, seed=seed
            )
        return answer.choices[0].message.content

    assert sampled(1) == sampled(1)
    assert sampled(1) != sampled(2)


def test_penalized_answer_and_its_logprobs_are_those_of_transformers(
    demo_cluster: ServedCluster, demo_model_dir: Path, demo_codec: TextCodec
) -> None:
    prompt = demo_codec.encode_chat(chat(QUESTIONS[2]))
    expected = greedy_tokens(demo_model_dir, prompt, 24, repetition_penalty=1.3)
    assert expected != greedy_tokens(demo_model_dir, prompt, 24)
    with demo_cluster.sdk() as client:
        answer = client.chat.completions.create(
            model="demo",
            messages=chat(QUESTIONS[2]),
            max_tokens=24,
            temperature=0,
            logprobs=True,
            top_logprobs=2,
            extra_body={"repetition_penalty": 1.3},
        )
    entries = answer.choices[0].logprobs.content
    assert [entry.token for entry in entries] == [demo_codec.token_piece(token_id).text for token_id in expected]
    # Scores are of the logits before the penalty.
    scores = logits(demo_model_dir, [*prompt, *expected[:-1]])[len(prompt) - 1 :].log_softmax(dim=-1)
    for entry, token_id, row in zip(entries, expected, scores, strict=True):
        assert entry.logprob == pytest.approx(float(row[token_id]), abs=1e-3)
        top = [each.logprob for each in entry.top_logprobs]
        assert top == pytest.approx(row.topk(2).values.tolist(), abs=1e-3)


def test_stop_string_ends_answer_on_both_workers(demo_cluster: ServedCluster) -> None:
    with demo_cluster.sdk() as client:
        answer = client.chat.completions.create(
            model="demo", messages=chat(QUESTIONS[0]), temperature=0, stop=[" France"]
        )
    assert answer.choices[0].message.content == "The capital of"
    assert answer.choices[0].finish_reason == "stop"
    demo_cluster.wait_until_all_free()


def test_errors_have_the_sdk_classes(demo_cluster: ServedCluster) -> None:
    with demo_cluster.sdk() as client:
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="gpt-5", messages=chat("hi"))
        with pytest.raises(openai.BadRequestError, match="temperature"):
            client.chat.completions.create(model="demo", messages=chat("hi"), temperature=-1)
        with pytest.raises(openai.BadRequestError, match="context"):
            client.chat.completions.create(model="demo", messages=chat("word " * 9000))
    assert httpx.post(f"{demo_cluster.url}/v1/chat/completions", content=b"{", trust_env=False).status_code == 400


def test_other_endpoints_answer(demo_cluster: ServedCluster) -> None:
    with httpx.Client(base_url=demo_cluster.url, trust_env=False) as client:
        assert client.get("/health").status_code == 200
        assert client.get("/ready").status_code == 200
        assert client.get("/v1/models").json()["data"][0]["id"] == "demo"


def test_status_shows_both_workers_as_a_table(demo_cluster: ServedCluster) -> None:
    shown = baton("status", "--port", str(demo_cluster.port))
    assert shown.returncode == 0
    assert "prefill-0" in shown.stdout
    assert "decode-0" in shown.stdout
    assert "ready" in shown.stdout


def test_chat_command_asks_one_question(demo_cluster: ServedCluster) -> None:
    asked = baton("chat", "--url", demo_cluster.url, "-m", QUESTIONS[0], "--temperature", "0")
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.strip() == "The capital of France is Paris."


def test_taken_port_is_one_sentence(demo_cluster: ServedCluster) -> None:
    second = baton("serve", "--port", str(demo_cluster.port))
    assert second.returncode == 2
    assert "--port" in second.stderr
    assert "Traceback" not in second.stderr


def test_interrupt_leaves_no_process_behind(demo_cluster: ServedCluster) -> None:
    assert demo_cluster.stop_with(demo_cluster.interrupt) == []
    assert baton("status", "--port", str(demo_cluster.port)).returncode == 1
