"""`baton plan`: how many GPUs a load needs and how to set them up; or a published figure beside our prediction."""

import math
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from core.errors import ConfigError
from deploy.bench.checks import at_least, check_writable, print_checks, write_result
from deploy.commands.options import output_console
from deploy.commands.plan_json import plan_json, published_json
from deploy.commands.plan_tables import print_plan, print_published
from deploy.flags import flags_from
from deploy.planning.find_model import find_model
from deploy.planning.options import Misfit, WorkerChoice, quantizations_of, topologies, worker_options
from deploy.planning.presets import preset_names
from deploy.planning.published import node_rates, published_by_name, sensitivity
from deploy.planning.settings import PlanSettings, load_of
from deploy.planning.shape import ModelShape, read_shape
from engine.parallel.topology import ShardTopology
from loadtest.arrivals import Arrival
from loadtest.planner.option import WorkerOption
from loadtest.planner.plan import Goal, Plan
from loadtest.planner.pool import on_all_cores
from loadtest.planner.search import search
from loadtest.roofline.assumptions import Assumptions
from loadtest.roofline.gpu import Gpu, gpu_by_name


@flags_from(PlanSettings)
def plan(settings: PlanSettings) -> None:
    """Find the fewest GPUs for a load and its limits: workers, their sizes and roles; what came second, and why."""
    check_writable("--json", settings.json)
    if settings.reproduce is not None:
        reproduce(settings, settings.reproduce)
        return
    choice = choice_of(settings)
    options, misfits = worker_options(choice, sizes_of(settings, choice.shape, choice.gpu))
    if not options:
        raise ConfigError(nothing_fits(choice, misfits))
    goal = Goal(settings.limits, settings.attainment, settings.max_gpus, settings.simulated)
    arrivals = load_of(settings)
    check_lengths(arrivals, choice.shape)
    found = search_with_progress(options, arrivals, goal)
    checks = checks_of(found)
    write_result({**plan_json(settings, choice, found, misfits), "checks": checks}, settings.json)
    print_plan(choice, found, misfits, output_console())
    print_checks(checks, output_console())


def choice_of(settings: PlanSettings) -> WorkerChoice:
    """What workers may be made of.

    Raises:
        ConfigError: there is no model, no such GPU, or no such format.
        CheckpointError: the model's configuration cannot be read.
    """
    if settings.model is None:
        raise ConfigError(f"--model is missing; pass a checkpoint folder or one of {', '.join(preset_names())}")
    shape = read_shape(find_model(settings.model)[1])
    return WorkerChoice(
        shape=shape,
        gpu=gpu_by_name(settings.gpu),
        quantizations=quantizations_of(shape, settings.quantization),
        kv_dtype=settings.kv_dtype,
        assumptions=Assumptions(),
    )


def sizes_of(settings: PlanSettings, shape: ModelShape, gpu: Gpu) -> list[ShardTopology]:
    """Sizes of a worker that are asked for, or all.

    Raises:
        ConfigError: none is left, or they do not go together.
    """
    tp, ep = settings.tp, settings.ep
    if tp is not None and ep is not None:
        asked = ShardTopology(tp, ep)
        if asked.world_size > gpu.gpus_per_node:
            raise ConfigError(
                f"--tp {tp} and --ep {ep} are {asked.world_size} GPUs, a node has {gpu.gpus_per_node}; the ranks of "
                "a worker are on one node"
            )
        return [asked]
    sizes = [
        size
        for size in topologies(shape, gpu.gpus_per_node)
        if tp in (None, size.tensor_parallel_size) and ep in (None, size.expert_parallel_size)
    ]
    if not sizes:
        flag, value = ("--tp", tp) if tp is not None else ("--ep", ep)
        raise ConfigError(
            f"{flag} is {value}; it must be a power of two, at most {gpu.gpus_per_node} (one node), and --ep 1 for a "
            "model without experts"
        )
    return sizes


def check_lengths(arrivals: Sequence[Arrival], shape: ModelShape) -> None:
    """Refuses a load that routers would.

    Raises:
        ConfigError: a request is longer than the model's context.
    """
    context = shape.text.max_position_embeddings
    longest = max(arrival.prompt_tokens + arrival.answer_tokens for arrival in arrivals)
    if longest > context:
        raise ConfigError(
            f"the longest request of the load has {longest:,} tokens with its answer, the model's context "
            f"{context:,}; take shorter prompts or answers, fewer turns, or a --length-scale below 1 for a trace"
        )


def nothing_fits(choice: WorkerChoice, misfits: Sequence[Misfit]) -> str:
    """Why there is no worker at all: that of the way which comes nearest."""
    nearest = min(misfits, key=lambda misfit: math.inf if misfit.missing_bytes is None else misfit.missing_bytes)
    return (
        f"no worker of {choice.gpu.name} is possible; {nearest.name}: {nearest.reason}; take other sizes, GPUs with "
        "more memory, or fewer bits"
    )


def search_with_progress(options: Sequence[WorkerOption], arrivals: Sequence[Arrival], goal: Goal) -> Plan:
    """Searches on all cores, and counts what was simulated in the terminal."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"simulating fleets under {len(arrivals):,} requests", total=None)
        with on_all_cores(arrivals, goal.limits, lambda _: progress.advance(task)) as simulate:
            return search(options, arrivals, goal, simulate)


def checks_of(plan: Plan) -> list[dict[str, Any]]:
    """Whether there is a plan that keeps the goal."""
    share = plan.winner.attainment if plan.winner is not None else 0.0
    return [at_least("plan_attainment", share, "of requests inside both limits", plan.goal.attainment)]


def reproduce(settings: PlanSettings, name: str) -> None:
    """Prints, and writes where `--json` says, a published figure beside the prediction.

    Raises:
        ConfigError: there is none of that name.
    """
    published, assumptions = published_by_name(name), Assumptions()
    rates = node_rates(published, assumptions)
    varied = list(sensitivity(published))
    write_result(published_json(published, assumptions, rates, varied), settings.json)
    print_published(published, rates, varied, output_console())
