import random

from hypothesis import given
from hypothesis import strategies as st

from router.roles.window import LEAST_EVENTS, AdaptiveWindow, Events, count_deviation, size_deviation

parts = st.builds(
    lambda duration_s, sizes: Events(duration_s, len(sizes), sum(sizes), sum(size * size for size in sizes)),
    duration_s=st.floats(0.25, 10.0),
    sizes=st.lists(st.integers(1, 1000), max_size=5),
)


def alike(count: int, size: float = 100.0, seconds: float = 1.0) -> Events:
    return Events(seconds, count, count * size, count * size * size)


def test_steady_events_fill_the_window() -> None:
    window = AdaptiveWindow(longest_s=60.0, significance=4.0)
    for _ in range(100):
        window.add(alike(3))
    assert window.total.duration_s == 60.0
    assert window.total.count == 180


def test_chance_is_no_change() -> None:
    draws = random.Random(1)  # noqa: S311 - a load, no secret
    window = AdaptiveWindow(longest_s=60.0, significance=4.0)
    shortened = 0
    for second in range(3600):
        sizes = [draws.uniform(50, 150) for _ in range(300) if draws.random() < 0.01]
        window.add(Events(1.0, len(sizes), sum(sizes), sum(size * size for size in sizes)))
        shortened += second >= 60 and window.total.duration_s < 50
    assert shortened < 360


def test_rate_that_doubles_is_believed_within_ten_seconds() -> None:
    window = AdaptiveWindow(longest_s=60.0, significance=4.0)
    for _ in range(60):
        window.add(alike(6))
    for _ in range(10):
        window.add(alike(12))
    assert window.total.count / window.total.duration_s == 12


def test_longer_prompts_are_believed_at_the_first_second() -> None:
    window = AdaptiveWindow(longest_s=60.0, significance=4.0)
    for _ in range(60):
        window.add(alike(2, size=300))
    window.add(alike(2, size=8000))
    assert window.total.mean == 8000


def test_sizes_that_always_vary_do_not_cut_the_window() -> None:
    window = AdaptiveWindow(longest_s=60.0, significance=4.0)
    for second in range(60):
        window.add(alike(2, size=100 if second % 2 else 3000))
    assert window.total.duration_s == 60.0


def test_few_events_say_nothing_about_sizes() -> None:
    few = alike(LEAST_EVENTS - 1, size=100)
    assert size_deviation(alike(1, size=9000), few) == 0.0
    assert size_deviation(alike(1, size=9000), alike(LEAST_EVENTS, size=100)) > 4


def test_no_time_is_no_rate() -> None:
    assert count_deviation(Events(0.0, 5, 5, 5), alike(1)) == 0.0


@given(st.lists(parts, max_size=80))
def test_window_is_the_sum_of_what_it_remembers(added: list[Events]) -> None:
    window = AdaptiveWindow(longest_s=30.0, significance=4.0)
    for part in added:
        window.add(part)
        assert -1e-6 <= window.total.duration_s < 30.0 + 10.0
        assert window.total.count >= 0
        assert window.total.variance >= 0
