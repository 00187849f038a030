import pytest

from loadtest.arrivals import Segment, segmented_arrivals

SEGMENTS = (Segment(30.0, (200, 400), (400, 600)), Segment(30.0, (6000, 9000), (30, 60)))


def test_arrivals_of_one_seed_are_the_same_and_of_another_are_not() -> None:
    assert segmented_arrivals(SEGMENTS, 2.0, 7) == segmented_arrivals(SEGMENTS, 2.0, 7)
    assert segmented_arrivals(SEGMENTS, 2.0, 7) != segmented_arrivals(SEGMENTS, 2.0, 8)


def test_arrivals_have_the_lengths_of_their_segment_and_the_rate_on_average() -> None:
    arrivals = segmented_arrivals(SEGMENTS, 50.0, 1)
    assert len(arrivals) == pytest.approx(50 * 60, rel=0.05)
    assert [arrival.at_s for arrival in arrivals] == sorted(arrival.at_s for arrival in arrivals)
    for arrival in arrivals:
        least, most = SEGMENTS[arrival.at_s >= 30].prompt_tokens
        assert least <= arrival.prompt_tokens <= most
