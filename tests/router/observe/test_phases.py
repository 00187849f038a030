import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.events import TokenTiming
from router.observe.phases import Phases

SECONDS = st.floats(0, 1e4)
timings = st.builds(TokenTiming, SECONDS, SECONDS)


def phases(**changes: object) -> Phases:
    known = {
        "arrived_s": 10.0, "first_assigned_s": 10.5, "assigned_s": 11.5, "first_s": 14.0, "second_s": 14.25,
        "last_s": 20.0, "prefilled": TokenTiming(0.5, 1.75), "decoded": TokenTiming(0.0, 0.125),
    }  # fmt: skip
    return Phases.of(**{**known, **changes})  # type: ignore[arg-type]


def test_every_moment_up_to_the_last_token_is_in_one_phase() -> None:
    found = phases()
    assert found == Phases(
        queue_s=1.0, retry_s=1.0, prefill_s=1.75, wire_s=0.25, handoff_s=0.125, first_step_s=0.125, decode_s=5.75
    )
    assert found.ttft_s == 4.0
    assert sum(found.by_name().values()) == 10.0


@pytest.mark.parametrize("changes", [{"second_s": None, "last_s": 14.0}, {"decoded": None}])
def test_answer_of_one_token_or_resumed_after_it_has_no_handoff(changes: dict[str, object]) -> None:
    found = phases(**changes)
    assert set(found.by_name()) == {"queue", "retry", "prefill", "wire", "decode"}
    assert found.ttft_s + found.decode_s == (4.0 if "second_s" in changes else 10.0)


@given(st.lists(SECONDS, min_size=6, max_size=6).map(sorted), timings, timings)
def test_phases_are_never_negative_and_add_up_whatever_workers_say(
    times: list[float], prefilled: TokenTiming, decoded: TokenTiming
) -> None:
    arrived_s, first_assigned_s, assigned_s, first_s, second_s, last_s = times
    found = Phases.of(
        arrived_s=arrived_s,
        first_assigned_s=first_assigned_s,
        assigned_s=assigned_s,
        first_s=first_s,
        second_s=second_s,
        last_s=last_s,
        prefilled=prefilled,
        decoded=decoded,
    )
    assert min(found.by_name().values()) >= 0
    assert found.ttft_s == pytest.approx(first_s - arrived_s, abs=1e-6)
    assert sum(found.by_name().values()) == pytest.approx(last_s - arrived_s, abs=1e-6)


def test_server_timing_is_in_milliseconds_and_ends_with_the_time_to_the_first_token() -> None:
    assert phases().server_timing() == (
        "queue;dur=1000.000, retry;dur=1000.000, prefill;dur=1750.000, wire;dur=250.000, handoff;dur=125.000, "
        "first_step;dur=125.000, decode;dur=5750.000, ttft;dur=4000.000"
    )
