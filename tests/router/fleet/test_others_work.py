from core.events import WorkerLoad
from router.fleet.others_work import OthersWork

LOAD = WorkerLoad(pending_prompt_tokens=100, running_sequences=4, incoming_handoffs=2, running_context_tokens=1000)


def test_what_a_router_has_assigned_is_not_the_others() -> None:
    assert OthersWork.of(LOAD, 30, 5, 400) == OthersWork(prompt_tokens=70, sequences=1, context_tokens=600)


def test_more_assigned_than_reported_leaves_nothing_to_others() -> None:
    assert OthersWork.of(LOAD, 101, 7, 1001) == OthersWork()
