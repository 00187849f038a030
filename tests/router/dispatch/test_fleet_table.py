"""The table of a fleet hears of everything that placement sees, through the links themselves."""

import math
from dataclasses import replace

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from core.clock import ManualClock
from core.events import WorkerLoad
from core.request import Role
from core.roles import RoleOrder, RoleState
from router.dispatch.fleet_table import FleetTable
from router.dispatch.generation import Attempt
from router.dispatch.ledger import charge, decode_candidate, discharge_all, discharge_prompt, prefill_candidate
from router.dispatch.placement import place
from router.fleet.fleet import Fleet
from router.fleet.link import WorkerLink
from router.wire import StepReport
from tests.builders import assignment
from tests.router.builders import RecordingLink

NAMES = ("a", "b", "c", "d")
TPOT_LIMIT_S = 0.1
names, roles = st.sampled_from(NAMES), st.sampled_from(list(Role))


class Deaf:
    """Hears what workers say, and does nothing."""

    def on_attached(self, link: WorkerLink) -> None: ...

    def on_report(self, link: WorkerLink, report: StepReport) -> None: ...

    def on_role_state(self, link: WorkerLink, before: RoleState) -> None: ...

    def on_lost(self, link: WorkerLink) -> None: ...


class Followed(RuleBasedStateMachine):
    """Workers that come, say, are charged, change and go; after each step the table chooses as if it were new."""

    def __init__(self) -> None:
        super().__init__()
        self.fleet = Fleet("router", ManualClock(), 10.0, Deaf())
        self.table = FleetTable(TPOT_LIMIT_S)
        self.links: dict[str, RecordingLink] = {}
        self.attempts: list[Attempt] = []
        self.num_come = 0

    @rule(name=names, role=roles)
    def come(self, name: str, role: Role) -> None:
        if name not in self.links:
            self.num_come += 1
            self._attach(name, role, self.num_come)

    def _attach(self, name: str, role: Role, incarnation: int) -> None:
        link = self.links[name] = RecordingLink(name, role, incarnation=incarnation)
        self.fleet._links[name] = link
        self.fleet.on_attached(link)

    @rule(name=names)
    def go(self, name: str) -> None:
        if (link := self.links.pop(name, None)) is not None:
            self.fleet.on_lost(link)
            link.hello = None

    @rule(name=names, role=roles)
    def lose_the_stream(self, name: str, role: Role) -> None:
        if (link := self.links.get(name)) is not None:
            incarnation = link.worker.incarnation
            self.go(name)
            self._attach(name, role, incarnation)

    @rule(
        name=names,
        num_tokens=st.integers(0, 500),
        num_sequences=st.integers(0, 7),
        change=st.sampled_from([0.0, 0.5]),
    )
    def report(self, name: str, num_tokens: int, num_sequences: int, change: float) -> None:
        if (link := self.links.get(name)) is not None:
            load = WorkerLoad(
                pending_prompt_tokens=num_tokens,
                running_sequences=num_sequences,
                running_context_tokens=10 * num_sequences,
                prefill_cost_change=change,
            )
            link._take_report(StepReport(load=load), self.fleet)

    @rule(prefill=names, decode=names, num_tokens=st.integers(1, 50))
    def charge(self, prefill: str, decode: str, num_tokens: int) -> None:
        if prefill in self.links and decode in self.links:
            work = assignment("h", num_tokens)
            self.attempts.append(Attempt(work, self.links[prefill], self.links[decode], num_tokens, num_tokens))
            charge(self.attempts[-1])

    @precondition(lambda self: self.attempts)
    @rule(data=st.data(), is_over=st.booleans())
    def discharge(self, data: st.DataObject, *, is_over: bool) -> None:
        number = data.draw(st.integers(0, len(self.attempts) - 1))
        if is_over:
            discharge_all(self.attempts.pop(number))
        else:
            discharge_prompt(self.attempts[number])

    @rule(name=names, role=roles)
    def order(self, name: str, role: Role) -> None:
        link = self.links.get(name)
        if link is not None and link.order is None:
            state = link.role_state
            link.set_role(RoleOrder("o", role, state.epoch, revision=state.revision))

    @rule(name=names)
    def take_order(self, name: str) -> None:
        link = self.links.get(name)
        if link is not None and link.order is not None:
            state = replace(link.state_to_be, order_id="o")
            link.touch()  # as for every message
            link._take_role(state, self.fleet)

    @invariant()
    def table_chooses_as_if_all_were_looked_at(self) -> None:
        self.table.refresh(self.fleet)
        prefill = [prefill_candidate(link, TPOT_LIMIT_S) for link in self.fleet.taking(Role.PREFILL)]
        decode = [decode_candidate(link) for link in self.fleet.taking(Role.DECODE)]
        prospect = self.table.table.prospect(30)
        assert prospect.place(wanted_in_s=math.inf) == place(prefill, decode, 30)
        assert self.table.num_prefill == len(prefill)
        assert len(self.table.kinds) == bool(self.links)
        for link in self.links.values():
            assert self.table.find(link.worker) is link


Followed.TestCase.settings = settings(max_examples=60, stateful_step_count=25)
TestFollowed = Followed.TestCase
