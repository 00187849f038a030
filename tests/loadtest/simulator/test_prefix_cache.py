from loadtest.simulator.prefix_cache import PrefixCache


def test_beginning_is_found_up_to_the_first_block_that_differs_but_never_all_of_a_prompt() -> None:
    cache = PrefixCache(16)
    cache.keep((1, 2, 3), room_tokens=1000)
    assert cache.num_tokens((1, 2, 9, 3), 60) == 32
    assert cache.num_tokens((1, 2, 3), 48) == 32
    assert cache.num_tokens((9, 2, 3), 60) == 0


def test_room_that_shrinks_evicts_the_ends_of_what_was_used_least_recently() -> None:
    cache = PrefixCache(16)
    cache.keep((1, 2), room_tokens=64)
    cache.keep((7, 8), room_tokens=64)
    cache.shrink(48)
    assert cache.num_tokens((1, 2), 100) == 16
    assert cache.num_tokens((7, 8), 100) == 32
    cache.shrink(0)
    assert len(cache) == 0
