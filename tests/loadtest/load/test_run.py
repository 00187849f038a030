"""Whole runs against a server, and the documents that they end in."""

import asyncio
import itertools
import json

import pytest

from core.errors import UnavailableError
from loadtest.load.chat_body import ChatBodies
from loadtest.load.client import LoadClient
from loadtest.load.conversation import Conversation, Message, Turn
from loadtest.load.document import load_document, run_document
from loadtest.load.faults import Deed, Fault
from loadtest.load.live import LiveFigures, LiveView
from loadtest.load.load_clock import LoadClock
from loadtest.load.run import MakeAsker, RunOutcome, RunPlan, run_load
from loadtest.load.settings import LoadSettings
from loadtest.load.target import Target
from tests.loadtest.load.playing_server import Answer, openai_answer, playing, refusal

TURN = Turn((Message("user", "hi"),), 3, prompt_tokens=6)


class Doer:
    async def do(self, fault: Fault) -> str:
        if fault.name == "missing":
            raise UnavailableError("missing is not attached now")
        return "done"


async def run_against(answer: Answer, plan: RunPlan, *faults: Fault) -> tuple[RunOutcome, list[LiveFigures]]:
    looks: list[LiveFigures] = []

    async def watch(view: LiveView) -> None:
        while True:
            looks.append(view.look())
            await asyncio.sleep(0.01)

    async with playing(answer) as server:
        conversations = (Conversation(0.01 * number, (TURN,)) for number in itertools.count())
        outcome = await run_load(
            plan, conversations, maker(server.target), faults=faults, doer=Doer() if faults else None, watch=watch
        )
    return outcome, looks


def maker(target: Target) -> MakeAsker:
    def make(clock: LoadClock, examples: dict[str, str]) -> LoadClient:
        bodies = ChatBodies("m", "max_tokens", {})
        return LoadClient(target, {}, bodies, tls=None, clock=clock, examples=examples, max_open=64, timeout_s=30.0)

    return make


@pytest.mark.parametrize("concurrency", [None, 2])
async def test_run_ends_in_a_document_with_its_figures(concurrency: int | None) -> None:
    plan = RunPlan("a run", None if concurrency else 100.0, concurrency, num_requests=6, duration_s=None)
    outcome, looks = await run_against(openai_answer, plan)
    settings = LoadSettings(warmup_requests=2, slo_ttft_ms=1e6, max_lag_ms=1e6)
    run = run_document(outcome, settings, with_records=True)
    summary = run["summary"]
    assert (summary["requests"], summary["answered"], summary["failed"], run["num_warmup"]) == (4, 4, 0, 2)
    assert (summary["output_tokens"], summary["prompt_tokens"], summary["planned_prompt_tokens"]) == (12, 28, 24)
    assert (summary["goodput"]["share"], len(run["series"]["ttft_ms"])) == (1.0, 4)
    assert [len(record["chunk_s"]) for record in run["records"]] == [3] * 6
    assert looks
    assert outcome.duration_s > 0
    assert "records" not in run_document(outcome, settings, with_records=False)
    document = load_document([run], settings, url="u", model="m", given={"--rate": "1"}, machine={"cores": 2})
    assert document["valid"] is run["valid"]
    assert json.loads(json.dumps(document)) == document


async def test_failures_and_faults_are_in_the_document() -> None:
    plan = RunPlan("a run", 100.0, None, num_requests=3, duration_s=None)
    faults = (Fault(0.0, Deed.KILL, "decode-0"), Fault(0.0, Deed.KILL, "missing"), Fault(3600.0, Deed.KILL, "late"))
    outcome, _ = await run_against(refusal("503 Service Unavailable", b"away"), plan, *faults)
    run = run_document(outcome, LoadSettings(max_lag_ms=1e6), with_records=False)
    assert run["summary"]["errors"] == {"http_503": {"count": 3, "example": "away"}}
    assert {fault["what"]: fault["error"] for fault in run["faults"]} == {
        "kill decode-0": None,
        "kill missing": "missing is not attached now",
        "kill late": "the run ended before its time",
    }
    assert run["valid"] is False
