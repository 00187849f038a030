import os
import pickle
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from core.errors import ShardGroupError
from core.logprobs import TokenLogprobs
from core.sampling import SamplingParams
from engine.commands import DrawTokens, MoveExperts
from engine.messages import RANK_MESSAGES
from engine.parallel.plain_pickle import PlainPickle
from engine.plan import Draw, SequenceSlice, SliceKind, StepPlan, StepResult
from engine.sampling.rules import LogitRules

PLAIN = PlainPickle(RANK_MESSAGES)


@dataclass(frozen=True)
class Calling:
    """Pickled as a call of something with arguments."""

    function: Callable[..., object]
    arguments: tuple[object, ...]

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.function, self.arguments


def plan() -> StepPlan:
    """A slice with everything that a plan can have."""
    params = SamplingParams(
        repetition_penalty=1.5, presence_penalty=1.0, logit_bias=((3, 1.5),), bad_words=((1, 2), (7,)), min_tokens=9
    )
    rules = LogitRules.of(params, (5,), (1, 2, 3, 1), num_answered=1)
    slices = [
        SequenceSlice("a", SliceKind.DECODE, [1], 4, [0, 2], Draw(params, 2, rules)),
        SequenceSlice("b", SliceKind.PROMPT, range(3), 0, (1,), None),
    ]
    return StepPlan(tuple(slices))


def test_what_ranks_send_arrives_as_it_was() -> None:
    sent = DrawTokens(plan())
    (slice_there, other_there), (slice_here, other_here) = (
        command.plan.slices for command in (PLAIN.loads(PLAIN.dumps(sent)), sent)
    )
    assert (list(other_there.token_ids), other_there.kind) == (list(other_here.token_ids), other_here.kind)
    there, here = slice_there.draw.rules, slice_here.draw.rules
    assert there.params == here.params
    assert [there.masked_ids(position) for position in (0, 20)] == [here.masked_ids(position) for position in (0, 20)]
    for ours, theirs in ((here.bias_ids, there.bias_ids), (here.counts.counts, there.counts.counts)):
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize(
    "value",
    [
        None,
        "text",
        (1, [2.5, {"a": b"b"}], {3}, frozenset({4})),
        MoveExperts(1, (0, 1, 2)),
        StepResult({"a": 1}, {"a": TokenLogprobs(1, -0.5, (1, 2), (-0.5, -1.0))}),
    ],
)
def test_values_arrive_as_they_were(value: object) -> None:
    assert PLAIN.loads(PLAIN.dumps(value)) == value


def test_contiguous_array_arrives_whatever_the_default_protocol_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protocol 5 would write its memory as a buffer."""
    dumps = pickle.dumps
    monkeypatch.setattr(pickle, "dumps", lambda value, protocol=5: dumps(value, protocol))
    array = np.arange(6, dtype=np.int64).reshape(2, 3)
    assert np.array_equal(PLAIN.loads(PLAIN.dumps(array)), array)


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (os.system, ("true",)),
        (subprocess.run, (["true"],)),
        (eval, ("1",)),
        (getattr, ("os", "system")),
        (pickle.loads, (b"N.",)),
        (torch.load, ("nowhere",)),
        (open, ("nowhere",)),
    ],
)
def test_anything_that_could_be_called_is_refused_by_name_and_not_called(
    function: Callable[..., object], arguments: tuple[object, ...]
) -> None:
    sent = PLAIN.dumps([Calling(function, arguments)])
    with pytest.raises(ShardGroupError, match=r"^a rank was sent [\w.]+, which no rank sends"):
        PLAIN.loads(sent)


def test_way_to_a_function_through_a_listed_type_is_refused() -> None:
    dotted = b"\x80\x04\x8c\x0bengine.plan\x94\x8c\x12StepPlan.__class__\x94\x93\x94."
    with pytest.raises(ShardGroupError, match=r"^a rank was sent engine\.plan\.StepPlan\.__class__"):
        PLAIN.loads(dotted)


def test_type_of_ours_that_is_not_listed_is_refused() -> None:
    with pytest.raises(ShardGroupError, match=r"test_plain_pickle\.Calling, which no rank sends"):
        PLAIN.loads(PLAIN.dumps(Calling))


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x04", b"\x80\x04K\x01", b"\xff" * 20])
def test_bytes_that_are_no_message_are_refused(content: bytes) -> None:
    with pytest.raises(ShardGroupError, match=rf"^a rank was sent {len(content)} bytes that are no message"):
        PLAIN.loads(content)
