"""What `baton plan` prints: the plan, what came second and why, or a published figure beside the prediction."""

import math
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from deploy.commands.plan_json import Varied, figures
from deploy.planning.options import Misfit, WorkerChoice
from deploy.planning.published import NodeRate, Published, best_rates
from loadtest.planner.plan import Outlook, Plan
from loadtest.planner.reasons import limit_missed, milliseconds, why_lost
from loadtest.planner.trial import Trial

MOST_ROWS = 12  # of options; all are in the file of `--json`


def print_plan(choice: WorkerChoice, plan: Plan, misfits: Sequence[Misfit], console: Console) -> None:
    """The fleet to build, its rivals and what is assumed."""
    demand, goal = plan.demand, plan.goal
    console.print(
        f"{demand.rate:.2f} requests/s, prompts of {demand.prompt_tokens:,.0f} tokens, {demand.new_tokens:,.0f} new, "
        f"answers of {demand.answer_tokens:,.0f}; wanted: {goal.attainment:.0%} inside a TTFT of "
        f"{milliseconds(goal.limits.ttft_s)} and a TPOT of {milliseconds(goal.limits.tpot_s)}"
    )
    if (winner := plan.winner) is None:
        console.print(f"No plan of up to {goal.max_gpus} GPUs keeps the goal.")
    else:
        console.print(_winner_table(choice, winner))
        console.print(_roles_table(plan.outlooks[0], winner, plan))
    console.print(_rivals_table(plan))
    console.print(
        f"{len(misfits)} further ways to build a worker do not fit, or do not divide the model; --json lists them."
    )
    if choice.shape.unserved_reason is not None:
        console.print(f"Note: {choice.shape.unserved_reason}.")
    console.print("Step times are derived from data sheets (docs/planning.md), not measured on a GPU.")


def _winner_table(choice: WorkerChoice, winner: Trial) -> Table:
    fleet = winner.fleet
    num_nodes = math.ceil(fleet.num_gpus / choice.gpu.gpus_per_node)
    output_rate = winner.goodput / fleet.num_gpus
    table = Table(title="The plan", title_justify="left", show_header=False)
    for name, value in (
        ("GPUs", f"{fleet.num_gpus} {choice.gpu.name} on {num_nodes} node(s)"),
        ("Workers", f"{fleet.num_workers} of {fleet.option.num_gpus} GPU(s): {fleet.option.name}"),
        ("Roles", roles_words(fleet.policy)),
        ("KV room of a worker", f"{fleet.option.kv_tokens:,} tokens"),
        ("--max-num-seqs", f"{fleet.max_num_seqs:,}"),
        ("Goodput", f"{winner.goodput:.2f} requests/s, {output_rate:.3f} per GPU"),
        ("Inside both limits", f"{winner.attainment:.1%} of {winner.num_requests:,}"),
        ("TTFT p50, p90", f"{milliseconds(winner.ttft_p50_s)}, {milliseconds(winner.ttft_p90_s)}"),
        ("TPOT p50, p90", f"{milliseconds(winner.tpot_p50_s)}, {milliseconds(winner.tpot_p90_s)}"),
    ):
        table.add_row(name, value)
    return table


def roles_words(policy: str) -> str:
    """A policy of the simulator, for people."""
    kind, *numbers = policy.split(":")
    if numbers:
        return f"{numbers[0]} prefill, {numbers[1]} decode"
    return {"mixed": "all for both halves", "auto": "by the controller, half of each to begin with"}[kind]


def _roles_table(outlook: Outlook, winner: Trial, plan: Plan) -> Table:
    """The winner's workers in other roles, and one worker fewer."""
    table = Table("GPUs", "the same workers in roles", "inside", "TTFT p90", "TPOT p90", "", box=None)
    failure = outlook.largest_failure(plan.goal.attainment)
    for trial in (*outlook.trials[winner.fleet.num_workers], *([failure] if failure is not None else [])):
        is_enough = trial.attainment >= plan.goal.attainment
        verdict = "the plan" if trial is winner else "enough, too" if is_enough else limit_missed(trial, plan.goal)
        table.add_row(
            str(trial.fleet.num_gpus),
            roles_words(trial.fleet.policy),
            f"{trial.attainment:.1%}",
            milliseconds(trial.ttft_p90_s),
            milliseconds(trial.tpot_p90_s),
            verdict,
        )
    return table


def _rivals_table(plan: Plan) -> Table:
    table = Table("other workers", "GPUs", "roles", "why not", box=None, title="Runners-up", title_justify="left")
    rivals = plan.outlooks[1:] if plan.winner is not None else plan.outlooks
    for outlook in rivals[:MOST_ROWS]:
        trial = outlook.smallest(plan.goal.attainment)
        gpus = str(trial.fleet.num_gpus) if trial is not None else "-"
        roles = roles_words(trial.fleet.policy) if trial is not None else "-"
        table.add_row(outlook.option.name, gpus, roles, why_lost(outlook, plan))
    return table


def print_published(published: Published, rates: Sequence[NodeRate], varied: Varied, console: Console) -> None:
    """A published figure, the prediction, and what each assumption is worth."""
    console.print(f"Published: {published.source}.")
    best = best_rates(rates)
    headline = Table("a node", "predicted", "published", "predicted / published", "by workers", box=None)
    for row, who in zip(figures(published, best), (best[0].name, best[1].name, "both"), strict=True):
        headline.add_row(row["name"], f"{row['value']:,.0f}", f"{row['published']:,.0f}", f"{row['ratio']:.2f}", who)
    console.print(headline)
    console.print(_rates_table(rates))
    console.print(_sensitivity_table(published, varied))


def _rates_table(rates: Sequence[NodeRate]) -> Table:
    table = Table(
        "workers", "on a node", "input/s", "output/s", "batch of a worker", "its step", "bound by", box=None
    )
    for rate in rates:
        table.add_row(
            rate.name,
            str(rate.num_workers),
            f"{rate.input_tokens_per_s:,.0f}",
            f"{rate.output_tokens_per_s:,.0f}",
            str(rate.batch),
            milliseconds(rate.step_s),
            rate.bound,
        )
    return table


def _sensitivity_table(published: Published, varied: Varied) -> Table:
    table = Table("assumption", "instead", "input/s", "output/s", "predicted / published", box=None)
    for name, value, best in varied:
        inputs, outputs, _ = figures(published, best)
        ratios = f"{inputs['ratio']:.2f}, {outputs['ratio']:.2f}"
        table.add_row(name, f"{value:g}", f"{inputs['value']:,.0f}", f"{outputs['value']:,.0f}", ratios)
    return table
