import torch
from torch import Tensor

from engine.kv.host_tier import HostTier


def tier(num_blocks: int = 3, max_copies: int = 10) -> HostTier:
    return HostTier(torch.zeros(num_blocks, 2), max_copies, on_leave=lambda _name: None)


def block(value: float) -> Tensor:
    return torch.full((2,), value)


def save(host: HostTier, names: bytes) -> None:
    """Blocks that hold the number of their name."""
    host.save([(block(name), bytes([name])) for name in names])
    host.check()


def restored(host: HostTier, name: bytes) -> float | None:
    target = torch.zeros(2)
    was_there = host.try_restore(name, target)
    host.check()
    return float(target[0]) if was_there else None


def test_saved_block_comes_back_once() -> None:
    host = tier()
    save(host, b"ab")
    assert b"a" in host
    assert restored(host, b"a") == ord("a")
    assert b"a" not in host
    assert restored(host, b"a") is None
    assert (host.num_blocks, host.num_restored, host.num_dropped) == (1, 1, 0)


def test_full_tier_drops_the_oldest() -> None:
    host = tier()
    save(host, b"abc")
    save(host, b"d")
    assert [restored(host, name) for name in (b"a", b"b", b"d")] == [None, ord("b"), ord("d")]
    assert host.num_dropped == 1


def test_batch_beyond_the_room_keeps_its_last_blocks() -> None:
    """The last ones evicted are those that the others continue."""
    host = tier(num_blocks=2)
    save(host, b"abcd")
    assert [name for name in b"abcd" if bytes([name]) in host] == list(b"cd")
    assert host.num_dropped == 2


def test_batch_beyond_the_step_s_budget_keeps_its_last_blocks() -> None:
    host = tier(max_copies=2)
    save(host, b"abc")
    save(host, b"d")
    assert [name for name in b"abcd" if bytes([name]) in host] == list(b"bc")
    host.begin_step()
    save(host, b"d")
    assert b"d" in host


def test_restoring_beyond_the_step_s_budget_waits_for_the_next() -> None:
    host = tier(max_copies=1)
    for names in (b"a", b"b"):
        host.begin_step()
        save(host, names)
    assert restored(host, b"a") is not None
    assert restored(host, b"b") is None
    assert b"b" in host
    host.begin_step()
    assert restored(host, b"b") == ord("b")


def test_saving_does_not_use_up_what_may_be_restored() -> None:
    host = tier(max_copies=1)
    save(host, b"a")
    assert restored(host, b"a") == ord("a")


def test_block_saved_again_is_not_copied_and_becomes_the_newest() -> None:
    host = tier()
    save(host, b"abc")
    host.save([(block(-1.0), b"a")])
    save(host, b"d")
    assert b"b" not in host
    assert restored(host, b"a") == ord("a")


def test_touched_chain_outlives_others_and_its_end_goes_first() -> None:
    host = tier()
    save(host, b"ab")
    save(host, b"z")
    host.touch([b"b", b"a", b"missing"])
    save(host, b"y")
    assert b"z" not in host
    save(host, b"x")
    assert b"a" not in host
    assert b"b" in host
