import asyncio

import pytest

from core.errors import ConfigError, UnavailableError
from core.request import Role
from loadtest.load.faults import Deed, Fault, FaultRecord, do_faults, parse_fault
from tests.loadtest.load.virtual_time import VirtualClock, run_virtually


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("30s kill decode-1", Fault(30.0, Deed.KILL, "decode-1")),
        ("0.5s  flip   prefill-2", Fault(0.5, Deed.FLIP, "prefill-2")),
        ("60s flip prefill-2 to mixed", Fault(60.0, Deed.FLIP, "prefill-2", Role.MIXED)),
        ("1s stop router", Fault(1.0, Deed.STOP, "router")),
    ],
)
def test_fault_is_read(text: str, fault: Fault) -> None:
    assert parse_fault(text) == fault
    assert " ".join(text.split()).endswith(fault.what)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is not a time, a deed and a name"),
        ("30s kill", "is not a time, a deed and a name"),
        ("30 kill decode-1", "begins with '30', which is no time such as 30s"),
        ("-1s kill decode-1", "begins with '-1s'"),
        ("30s tickle decode-1", "has 'tickle', which is none of kill, stop, cont, flip, drain, uncordon"),
        ("30s flip router", "would flip a router, which has no role"),
        ("30s drain router", "would drain a router"),
        ("30s kill decode-1 to mixed", "ends with 'to mixed'; only a flip leads 'to' one of"),
        ("30s flip decode-1 to sleep", "ends with 'to sleep'"),
        ("30s flip decode-1 is mixed", "ends with 'is mixed'"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_fault(text)
    assert caught.value.message.startswith(f"--at {text!r} {problem}")


class Doer:
    """Takes two seconds; cannot do anything to `missing`."""

    async def do(self, fault: Fault) -> str:
        await asyncio.sleep(2.0)
        if fault.name == "missing":
            raise UnavailableError("missing is not attached now")
        return f"done to {fault.name}"


def done_within(faults: list[Fault], duration_s: float) -> list[FaultRecord]:
    done: list[FaultRecord] = []

    async def run() -> None:
        task = asyncio.create_task(do_faults(faults, Doer(), VirtualClock(), done))
        await asyncio.sleep(duration_s)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run_virtually(run())
    return sorted(done, key=lambda fault: fault.at_s)


def test_faults_happen_at_their_times_also_at_once() -> None:
    faults = [Fault(5.0, Deed.KILL, "b"), Fault(1.0, Deed.KILL, "a"), Fault(1.5, Deed.STOP, "missing")]
    assert done_within(faults, 20.0) == [
        FaultRecord(1.0, 3.0, "kill a", "done to a"),
        FaultRecord(1.5, 3.5, "stop missing", error="missing is not attached now"),
        FaultRecord(5.0, 7.0, "kill b", "done to b"),
    ]


def test_end_of_the_run_leaves_a_record_of_what_was_not_done() -> None:
    faults = [Fault(9.0, Deed.DRAIN, "a"), Fault(60.0, Deed.KILL, "b")]
    assert done_within(faults, 10.0) == [
        FaultRecord(9.0, None, "drain a", "under way when the run ended"),
        FaultRecord(60.0, None, "kill b", error="the run ended before its time"),
    ]
