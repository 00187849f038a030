from dataclasses import replace

import pytest

from core.errors import HandoffError, StaleEpochError
from core.ids import WorkerEndpoint, WorkerId
from core.sampling import SamplingParams
from engine.kv.layout import KvLayout
from tests.builders import DECODE, PREFILL, assignment, cost_model
from worker.identity import WorkerIdentity

LAYOUT = KvLayout(num_layers=4, kv_heads=2, block_tokens=4, head_dim=16, dtype="float32")
IDENTITY = WorkerIdentity(
    endpoint=PREFILL,
    fingerprint="f1",
    layout=LAYOUT,
    num_blocks=100,
    vocab_size=50,
    max_num_seqs=8,
    max_model_len=20,
    cost_model=cost_model(),
)
RESTARTED = WorkerEndpoint(WorkerId(PREFILL.worker.name, PREFILL.worker.incarnation + 1), PREFILL.address)


@pytest.mark.parametrize("me", [PREFILL, DECODE])
def test_assignment_that_names_this_worker_is_taken(me: WorkerEndpoint) -> None:
    assert replace(IDENTITY, endpoint=me).refusal(assignment("h")) is None


def test_assignment_for_others_is_stale() -> None:
    error = replace(IDENTITY, endpoint=RESTARTED).refusal(assignment("h"))
    assert isinstance(error, StaleEpochError)
    assert "prefill-0@2" in error.message


def test_token_just_inside_the_vocabulary_is_taken_and_just_outside_is_not() -> None:
    assert IDENTITY.refusal(replace(assignment("h"), prompt=(49,))) is None
    error = IDENTITY.refusal(replace(assignment("h"), prompt=(1, 50, 2)))
    assert error is not None
    assert (error.code, error.http_status) == ("invalid_value", 400)
    assert "token id 50" in error.message
    assert "vocabulary of 50" in error.message


@pytest.mark.parametrize(
    "sampling", [SamplingParams(logit_bias=((3, 1.0), (50, 1.0))), SamplingParams(bad_words=((1,), (2, 50)))]
)
def test_token_of_the_sampling_outside_the_vocabulary_is_not_taken(sampling: SamplingParams) -> None:
    error = IDENTITY.refusal(replace(assignment("h"), sampling=sampling))
    assert error is not None
    assert "token id 50 is outside the vocabulary of 50" in error.message


def test_length_at_the_limit_is_taken_and_over_it_is_not() -> None:
    assert IDENTITY.refusal(assignment("h", 12, 8)) is None
    error = IDENTITY.refusal(assignment("h", 13, 8))
    assert error is not None
    assert error.code == "context_length_exceeded"
    assert "21 tokens" in error.message
    assert "limit of 20" in error.message


@pytest.mark.parametrize("changes", [{"prompt": ()}, {"max_new_tokens": 0}])
def test_nothing_to_compute_is_refused(changes: dict[str, object]) -> None:
    error = IDENTITY.refusal(replace(assignment("h"), **changes))
    assert error is not None
    assert error.code == "invalid_value"


def test_check_target_takes_this_very_process_only() -> None:
    IDENTITY.check_target(PREFILL.worker)
    for other in (RESTARTED.worker, DECODE.worker, WorkerId("prefill-0", 0)):
        with pytest.raises(StaleEpochError, match=f"{other} is gone; this is prefill-0@1"):
            IDENTITY.check_target(other)


def test_other_model_is_refused_with_both_values() -> None:
    IDENTITY.check_model(DECODE.worker, "f1")
    with pytest.raises(HandoffError, match="decode-0@1 serves model f2, prefill-0@1 serves f1"):
        IDENTITY.check_model(DECODE.worker, "f2")
