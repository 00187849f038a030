import gc

from router.garbage import NUM_YOUNGEST, collecting_rarely


def test_what_is_there_is_left_alone_while_the_router_serves_and_no_longer() -> None:
    before = gc.get_threshold()
    num_frozen = gc.get_freeze_count()
    with collecting_rarely():
        assert gc.get_freeze_count() > num_frozen
        assert gc.get_threshold() == (NUM_YOUNGEST, *before[1:])
    assert gc.get_freeze_count() == 0
    assert gc.get_threshold() == before
