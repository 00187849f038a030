"""Placement by the router's own code, which all policies but Arrow's share."""

import math

from loadtest.simulator.job import Job
from loadtest.simulator.view import FleetView, decode_candidate, prefill_candidate
from loadtest.simulator.worker import SimWorker
from router.dispatch.placement import place


class RouterPlacement:
    """Places as the router does: both workers together, when the request comes."""

    def place(self, job: Job, fleet: FleetView) -> tuple[SimWorker, SimWorker | None] | None:
        """See `Policy.place`."""
        tpot_limit_s = fleet.limits.tpot_s
        prefill = [prefill_candidate(w, job, tpot_limit_s) for w in fleet.prefill_workers]
        decode = [decode_candidate(worker, fleet.assigned(worker), job) for worker in fleet.decode_workers]
        due_s = job.arrival.at_s + fleet.limits.ttft_s
        left_s = due_s - fleet.now_s if job.first_token_s is None else math.inf
        chosen = place(prefill, decode, job.prompt_tokens, wanted_in_s=left_s, tpot_limit_s=tpot_limit_s)
        return (fleet.worker(chosen[0].name), fleet.worker(chosen[1].name)) if chosen else None

    def place_decode(self, job: Job, fleet: FleetView) -> SimWorker:  # noqa: ARG002 - `place` says it all
        """Never asked: the router decides both at once."""
        raise AssertionError(f"request {job.number} was placed without a decode worker")
