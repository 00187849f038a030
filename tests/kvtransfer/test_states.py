import re
from enum import Enum

import pytest

from kvtransfer import states
from kvtransfer.states import SOURCE_TRANSITIONS, TARGET_TRANSITIONS, SourceState, TargetState

Table = dict[tuple[Enum, Enum], Enum]
TABLES = {"Source": SOURCE_TRANSITIONS, "Target": TARGET_TRANSITIONS}
STARTS = {"Source": {SourceState.NEW}, "Target": {TargetState.ANNOUNCED, TargetState.BEGUN, TargetState.READY}}

STATE_LIST = r"[A-Z]+(?:, [A-Z]+)*"


def drawn_edges(end: str) -> set[tuple[str, str, str]]:
    """The arrows of one drawing in the module's docstring, by name."""
    assert states.__doc__ is not None
    drawing = re.split(r"^(\w+) \(.*\):$", states.__doc__, flags=re.MULTILINE)
    text = drawing[drawing.index(end) + 1]
    edges = set()
    for line in text.splitlines():
        for match in re.finditer(rf"(?=(?:^|[ >])({STATE_LIST}) ──([a-z ]+)──> ([A-Z]+))", line):
            sources, event, target = match.groups()
            edges |= {(source, event.replace(" ", "_").upper(), target) for source in sources.split(", ")}
    return edges


@pytest.mark.parametrize("end", TABLES)
def test_drawing_has_every_transition_of_the_table_and_no_other(end: str) -> None:
    table: Table = TABLES[end]
    assert drawn_edges(end) == {(state.name, event.name, after.name) for (state, event), after in table.items()}


@pytest.mark.parametrize("end", TABLES)
def test_every_state_is_reached_and_every_event_used(end: str) -> None:
    table: Table = TABLES[end]
    reached = set(STARTS[end])
    for _ in table:
        reached |= {after for (state, _), after in table.items() if state in reached}
    states_of_end = type(next(iter(table.values())))
    assert reached == set(states_of_end)
    events = {event for _, event in table}
    assert events == set(type(next(iter(events))))


@pytest.mark.parametrize("end", TABLES)
def test_closed_is_final_and_reached_from_every_other_state(end: str) -> None:
    table: Table = TABLES[end]
    ends = {state for state, _ in table}
    assert "CLOSED" not in {state.name for state in ends}
    can_close = {state for state in type(next(iter(ends))) if state.name == "CLOSED"}
    for _ in table:
        can_close |= {state for (state, _), after in table.items() if after in can_close}
    assert can_close == set(type(next(iter(ends))))
