"""A load of greedy answers of exact lengths on an API without keys and TLS: for measurements that start their own."""

import asyncio
from collections.abc import Iterator
from functools import partial

from core.errors import InternalError
from deploy.load.new_client import new_client
from loadtest.load.conversation import Conversation
from loadtest.load.run import RunOutcome, RunPlan, Watch, run_load
from loadtest.load.settings import LoadSettings
from loadtest.load.target import Target

SETTINGS = LoadSettings(temperature=0.0, ignore_eos=True, max_open=1024, timeout_s=300.0)


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
    make = partial(new_client, Target.parse(url), model, SETTINGS)
    outcome = asyncio.run(run_load(plan, conversations, make, faults=(), doer=None, watch=watch))
    if outcome.examples:
        raise InternalError(f"requests failed under the load {plan.name!r}: {outcome.examples}")
    return outcome
