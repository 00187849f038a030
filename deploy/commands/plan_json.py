"""Everything that `baton plan` found, as JSON values."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from deploy.planning.options import Misfit, WorkerChoice
from deploy.planning.published import NodeRate, Published, best_rates, requests_per_s
from deploy.planning.settings import PlanSettings
from loadtest.planner.option import Estimate
from loadtest.planner.plan import Outlook, Plan
from loadtest.planner.reasons import why_lost
from loadtest.planner.trial import Trial
from loadtest.roofline.assumptions import Assumptions

Varied = Sequence[tuple[str, float, tuple[NodeRate, NodeRate]]]
"""Name and value of an assumption that was changed, and the best rates for prompts and for answers with it."""


def plan_json(settings: PlanSettings, choice: WorkerChoice, plan: Plan, misfits: Iterable[Misfit]) -> dict[str, Any]:
    """A plan: what was asked, assumed, found, and why the rest lost."""
    winner = plan.winner
    return {
        "asked": settings.given(),
        "gpu": asdict(choice.gpu),
        "assumptions": asdict(choice.assumptions),
        "demand": asdict(plan.demand),
        "goal": asdict(plan.goal),
        "plan": trial_json(winner) if winner is not None else None,
        "outlooks": [
            {
                **outlook_json(outlook),
                "why_lost": None if number == 0 and winner is not None else why_lost(outlook, plan),
            }
            for number, outlook in enumerate(plan.outlooks)
        ],
        "misfits": [asdict(misfit) for misfit in misfits],
    }


def outlook_json(outlook: Outlook) -> dict[str, Any]:
    """An option: what was estimated and simulated of it."""
    option, verdict = outlook.option, outlook.verdict
    return {
        "workers": option.name,
        "gpus_per_worker": option.num_gpus,
        "kv_tokens": option.kv_tokens,
        "sequence_tokens": option.sequence_tokens,
        "cost": option.cost.to_json(),
        "estimate": {**asdict(verdict), "gpus": outlook.estimated_gpus} if isinstance(verdict, Estimate) else None,
        "trials": [trial_json(trial) for number in sorted(outlook.trials) for trial in outlook.trials[number]],
    }


def trial_json(trial: Trial) -> dict[str, Any]:
    """A simulated fleet."""
    fleet = trial.fleet
    figures = {name: getattr(trial, name) for name in Trial.__slots__ if name != "fleet"}
    return {
        "workers": fleet.option.name,
        "num_workers": fleet.num_workers,
        "num_gpus": fleet.num_gpus,
        "roles": fleet.policy,
        "max_num_seqs": fleet.max_num_seqs,
        **figures,
    }


def published_json(
    published: Published, assumptions: Assumptions, rates: Sequence[NodeRate], varied: Varied
) -> dict[str, Any]:
    """A published figure, the prediction and what each assumption is worth. It has no target, so no check."""
    return {
        "published": asdict(published),
        "assumptions": asdict(assumptions),
        "figures": figures(published, best_rates(rates)),
        "rates": [asdict(rate) for rate in rates],
        "sensitivity": [
            {"assumption": name, "value": value, "figures": figures(published, best)} for name, value, best in varied
        ],
        "checks": [],
    }


def figures(published: Published, best: tuple[NodeRate, NodeRate]) -> list[dict[str, Any]]:
    """Predicted beside published, of a node of each half, and of nodes split between both."""
    prefill, decode = best
    theirs = published.input_tokens_per_s, published.output_tokens_per_s
    ours = prefill.input_tokens_per_s, decode.output_tokens_per_s
    rows = (
        ("input_tokens_per_s", ours[0], theirs[0]),
        ("output_tokens_per_s", ours[1], theirs[1]),
        ("requests_per_s", requests_per_s(published, *ours), requests_per_s(published, *theirs)),
    )
    return [
        {"name": name, "value": value, "unit": "per node", "published": reported, "ratio": value / reported}
        for name, value, reported in rows
    ]
