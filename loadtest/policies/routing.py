"""Acceptance and placement by the router's own code, which all policies but Arrow's share."""

import math
from typing import Protocol

from core.errors import OverloadedError
from core.ids import WorkerId
from loadtest.simulator.front_door import TENANT
from loadtest.simulator.job import Job
from loadtest.simulator.view import FleetView, decode_candidate, prefill_candidate
from loadtest.simulator.worker import SimWorker
from router.admission.outlook import Outlook, look_ahead
from router.dispatch.placement import place

TIMEOUT_S = 600.0  # of every request: a router's default


class Prospect(Protocol):
    """What one request is to expect now, and where it goes: the router's table says, or `EachWorker`."""

    def outlook(self, num_answer_tokens: float) -> Outlook | None:
        """As `look_ahead`; None while a role has no worker. Answers have so many tokens in the mean."""
        ...

    def place(self, *, wanted_in_s: float, latest_s: float, tpot_limit_s: float) -> tuple[WorkerId, WorkerId] | None:
        """As `router.dispatch.placement.place`."""
        ...


class RouterPlacement:
    """Accepts and places as the router does: both workers together, when the request comes."""

    def place(self, job: Job, fleet: FleetView) -> tuple[SimWorker, SimWorker | None] | OverloadedError | None:
        """See `Policy.place`."""
        prospect: Prospect = fleet.prospect(job) or EachWorker(job, fleet)
        admission = fleet.admission
        if admission is not None and job.is_accepted is None:
            refusal = admission.refusal(TENANT, prospect.outlook(admission.answers.mean), TIMEOUT_S)
            if refusal is not None:
                return refusal
        due_s = job.arrival.at_s + fleet.limits.ttft_s
        chosen = prospect.place(
            wanted_in_s=due_s - fleet.now_s if job.first_token_s is None else math.inf,
            latest_s=math.inf if admission is None else admission.limits.ttft_s,
            tpot_limit_s=fleet.limits.tpot_s,
        )
        return (fleet.worker(chosen[0].name), fleet.worker(chosen[1].name)) if chosen else None

    def place_decode(self, job: Job, fleet: FleetView) -> SimWorker:  # noqa: ARG002 - `place` says it all
        """Never asked: the router decides both at once."""
        raise AssertionError(f"request {job.number} was placed without a decode worker")


class EachWorker:
    """Looks at every worker of a small fleet.

    Args:
        job: the request.
        fleet: the workers.
    """

    def __init__(self, job: Job, fleet: FleetView) -> None:
        present = fleet.present(job)
        self._num_tokens = job.prompt_tokens
        self._prefill = [
            prefill_candidate(each, fleet.limits.tpot_s, present.get(each, 0)) for each in fleet.prefill_workers
        ]
        self._decode = [
            decode_candidate(each, fleet.assigned(each), present.get(each, 0)) for each in fleet.decode_workers
        ]

    def outlook(self, num_answer_tokens: float) -> Outlook | None:
        """See `Prospect.outlook`."""
        if not self._prefill or not self._decode:
            return None
        return look_ahead(self._prefill, self._decode, self._num_tokens, num_answer_tokens)

    def place(self, *, wanted_in_s: float, latest_s: float, tpot_limit_s: float) -> tuple[WorkerId, WorkerId] | None:
        """See `Prospect.place`."""
        return place(
            self._prefill,
            self._decode,
            self._num_tokens,
            wanted_in_s=wanted_in_s,
            latest_s=latest_s,
            tpot_limit_s=tpot_limit_s,
        )
