import pytest

from core.cost import StepShape
from engine.engine import Engine
from engine.plan import SliceKind, StepPlan
from worker.cost.probe import ProbeStep, time_step
from worker.loop import step_shape

STEPS = [
    ProbeStep(SliceKind.PROMPT, 1),
    ProbeStep(SliceKind.PROMPT, 13),
    ProbeStep(SliceKind.PROMPT, 8, context=30),
    ProbeStep(SliceKind.DECODE, 1),
    ProbeStep(SliceKind.DECODE, 5, context=17),
]


@pytest.mark.parametrize("step", STEPS)
def test_step_is_computed_with_the_shape_it_says_and_leaves_nothing_behind(
    engine: Engine, step: ProbeStep, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans: list[StepPlan] = []
    compute = engine.logits
    monkeypatch.setattr(engine, "logits", lambda plan: (plans.append(plan), compute(plan))[1])
    assert time_step(engine, step) > 0
    (plan,) = plans
    prompts = [piece for piece in plan.slices if piece.kind is SliceKind.PROMPT]
    decodes = [piece for piece in plan.slices if piece.kind is SliceKind.DECODE]
    assert step_shape(prompts, decodes) == step.shape
    assert (engine.num_prompt_tokens, engine.num_decode_tokens, engine.num_steps) == (0, 0, 0)
    assert engine.pool.blocks.num_free == engine.pool.num_blocks


def test_shape_of_decode_counts_the_token_itself() -> None:
    assert ProbeStep(SliceKind.DECODE, 5, context=17).shape == StepShape(num_sequences=5, num_context_tokens=90)


@pytest.mark.parametrize(
    ("step", "fits"),
    [
        (ProbeStep(SliceKind.PROMPT, 128), True),
        (ProbeStep(SliceKind.PROMPT, 129), False),
        (ProbeStep(SliceKind.PROMPT, 8, context=121), False),
        (ProbeStep(SliceKind.DECODE, 64), True),
        (ProbeStep(SliceKind.DECODE, 65), False),
        (ProbeStep(SliceKind.DECODE, 16, context=15), True),
        (ProbeStep(SliceKind.DECODE, 16, context=16), False),
    ],
)
def test_step_fits_when_length_and_blocks_allow(engine: Engine, step: ProbeStep, fits: bool) -> None:
    assert step.fits(engine) is fits
