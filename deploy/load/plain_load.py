"""A load of greedy answers of exact lengths on an API without keys and TLS: for measurements that start their own."""

import asyncio
from collections.abc import Iterator
from functools import partial

from core.errors import InternalError
from loadtest.load.chat_body import ChatBodies
from loadtest.load.client import LoadClient
from loadtest.load.conversation import Conversation
from loadtest.load.faults import Fault
from loadtest.load.load_clock import LoadClock
from loadtest.load.run import RunOutcome, RunPlan, Watch, run_load
from loadtest.load.target import Target

MAX_OPEN = 1024
TIMEOUT_S = 300.0
FIELDS = {"temperature": 0.0, "ignore_eos": True}


def send_plain_load(
    url: str, model: str, plan: RunPlan, conversations: Iterator[Conversation], watch: Watch
) -> RunOutcome:
    """Sends a load and waits for its answers.

    Args:
        url: of the API.
        model: its name there.
        plan: how many requests, and how.
        conversations: the requests.
        watch: shows how it goes.

    Raises:
        InternalError: a request failed; holds what was said.
    """
    make = partial(_client, Target.parse(url), model)
    outcome = asyncio.run(run_load(plan, conversations, make, faults=(), doer=_NoFaults(), watch=watch))
    if outcome.examples:
        raise InternalError(f"requests failed under the load {plan.name!r}: {outcome.examples}")
    return outcome


def _client(target: Target, model: str, clock: LoadClock, examples: dict[str, str]) -> LoadClient:
    return LoadClient(
        target,
        {},
        ChatBodies(model, "max_tokens", FIELDS),
        tls=None,
        clock=clock,
        examples=examples,
        max_open=MAX_OPEN,
        timeout_s=TIMEOUT_S,
    )


class _NoFaults:
    """A `FaultDoer` where there are no faults."""

    async def do(self, fault: Fault) -> str:
        """Never called."""
        raise AssertionError(f"{fault.what} was not asked for")
