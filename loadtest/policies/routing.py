"""Acceptance and placement by the router's own code, which all policies but Arrow's share."""

import math

from core.errors import OverloadedError
from loadtest.simulator.front_door import TENANT
from loadtest.simulator.job import Job
from loadtest.simulator.view import FleetView, decode_candidate, prefill_candidate
from loadtest.simulator.worker import SimWorker
from router.admission.outlook import look_ahead
from router.dispatch.placement import DecodeCandidate, PrefillCandidate, place

TIMEOUT_S = 600.0  # of every request: a router's default


class RouterPlacement:
    """Accepts and places as the router does: both workers together, when the request comes."""

    def place(self, job: Job, fleet: FleetView) -> tuple[SimWorker, SimWorker | None] | OverloadedError | None:
        """See `Policy.place`."""
        present, tpot_limit_s = fleet.present(job), fleet.limits.tpot_s
        prefill = [prefill_candidate(each, tpot_limit_s, present.get(each, 0)) for each in fleet.prefill_workers]
        decode = [decode_candidate(each, fleet.assigned(each), present.get(each, 0)) for each in fleet.decode_workers]
        if job.is_accepted is None and (refusal := _refusal(job, fleet, prefill, decode)) is not None:
            return refusal
        due_s = job.arrival.at_s + fleet.limits.ttft_s
        chosen = place(
            prefill,
            decode,
            job.prompt_tokens,
            wanted_in_s=due_s - fleet.now_s if job.first_token_s is None else math.inf,
            latest_s=math.inf if fleet.admission is None else fleet.admission.limits.ttft_s,
            tpot_limit_s=tpot_limit_s,
        )
        return (fleet.worker(chosen[0].name), fleet.worker(chosen[1].name)) if chosen else None

    def place_decode(self, job: Job, fleet: FleetView) -> SimWorker:  # noqa: ARG002 - `place` says it all
        """Never asked: the router decides both at once."""
        raise AssertionError(f"request {job.number} was placed without a decode worker")


def _refusal(
    job: Job, fleet: FleetView, prefill: list[PrefillCandidate], decode: list[DecodeCandidate]
) -> OverloadedError | None:
    """Why a new request is not accepted; None when it is."""
    if fleet.admission is None:
        return None
    outlook = None
    if prefill and decode:
        outlook = look_ahead(prefill, decode, job.prompt_tokens, fleet.admission.answers.mean)
    return fleet.admission.refusal(TENANT, outlook, TIMEOUT_S)
