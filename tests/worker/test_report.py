from core.events import ReturnedWork, TokenEvent, WorkerLoad
from worker.report import StepOutbox, StepReport


def test_take_sorts_by_router_in_order_and_empties() -> None:
    outbox = StepOutbox()
    tokens = [TokenEvent("a", position, 7) for position in range(3)]
    for event in tokens:
        outbox.token("router-1", event)
    outbox.token("router-2", tokens[0])
    outbox.returned("router-2", ReturnedWork("b", "preempted", "no room"))
    assert outbox.take() == {
        "router-1": StepReport(tokens=tokens),
        "router-2": StepReport(tokens=tokens[:1], returned=[ReturnedWork("b", "preempted", "no room")]),
    }
    assert outbox.take() == {}


def test_report_taken_is_not_touched_by_later_events() -> None:
    outbox = StepOutbox()
    outbox.token("router-1", TokenEvent("a", 0, 7))
    first = outbox.take()
    outbox.token("router-1", TokenEvent("a", 1, 8))
    assert [event.position for event in first["router-1"].tokens] == [0]


def test_new_report_is_empty() -> None:
    assert StepReport() == StepReport(tokens=[], returned=[], load=WorkerLoad())
