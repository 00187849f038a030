from collections.abc import Sequence

import pytest

from engine.kv.accounting import BlockState, Hold
from engine.kv.block_table import BlockTable
from engine.kv.pool import BlockPool
from tests.builders import small_pool

BLOCK_TOKENS = 4
PROMPT = tuple(range(1, 13))  # three full blocks


def pool_of(num_blocks: int = 8, num_host_blocks: int = 0) -> BlockPool:
    return small_pool(num_blocks, BLOCK_TOKENS, enable_prefix_caching=True, num_host_blocks=num_host_blocks)


def reserve(
    pool: BlockPool, token_ids: Sequence[int] = PROMPT, salt: str = "", *, hold: Hold = Hold.RUNNING
) -> BlockTable:
    table = BlockTable(pool, salt, token_ids)
    num_blocks = pool.layout.blocks_for(len(token_ids))
    assert table.try_reserve(num_blocks, max_shared=len(token_ids) // BLOCK_TOKENS, hold=hold)
    pool.check()
    return table


def compute(pool: BlockPool, table: BlockTable, num_tokens: int = len(PROMPT)) -> None:
    """Fills blocks with their own ids, so that copies are told apart from originals."""
    for block_id in table.block_ids[table.num_named :]:
        pool.tensor[block_id] = float(block_id + 1)
    table.publish(num_tokens)
    pool.check()


def counts(pool: BlockPool) -> dict[BlockState, int]:
    return {state: count for state, count in pool.blocks.counts().items() if count}


def test_released_blocks_are_found_by_the_next_sequence_that_begins_so() -> None:
    pool = pool_of()
    first = reserve(pool)
    compute(pool, first)
    block_ids = first.block_ids
    first.release()
    assert counts(pool) == {BlockState.CACHED: 3, BlockState.FREE: 5}
    second = reserve(pool, (*PROMPT[:8], 99, 98))
    assert (second.num_named, second.block_ids[:2]) == (2, block_ids[:2])
    assert second.block_ids[2] not in block_ids
    assert counts(pool) == {BlockState.RUNNING: 3, BlockState.CACHED: 1, BlockState.FREE: 4}


def test_only_full_and_final_blocks_are_found() -> None:
    pool = pool_of()
    first = reserve(pool)
    compute(pool, first, num_tokens=7)
    assert reserve(pool).num_named == 1


def test_no_more_is_shared_than_asked_for() -> None:
    pool = pool_of()
    compute(pool, reserve(pool))
    table = BlockTable(pool, "", PROMPT)
    assert table.try_reserve(3, max_shared=2)
    assert (table.num_named, table.adopt(2)) == (2, 2)
    assert table.adopt(3) == 3


@pytest.mark.parametrize("salts", [("", "a"), ("a", "b")])
def test_tenants_with_different_salts_share_nothing(salts: tuple[str, str]) -> None:
    pool = pool_of()
    compute(pool, reserve(pool, salt=salts[0]))
    assert reserve(pool, salt=salts[1]).num_named == 0
    assert reserve(pool, PROMPT[:8], salt=salts[0]).num_named == 2


def test_pool_without_caching_shares_nothing_and_frees_at_once() -> None:
    pool = small_pool(8, BLOCK_TOKENS)
    first = reserve(pool)
    compute(pool, first)
    assert (first.num_named, reserve(pool).num_named) == (0, 0)
    first.release()
    assert counts(pool) == {BlockState.RUNNING: 3, BlockState.FREE: 5}


def test_adopt_takes_what_another_sequence_has_computed_meanwhile() -> None:
    pool = pool_of()
    first, second = reserve(pool), reserve(pool)
    compute(pool, first, num_tokens=8)
    assert second.adopt(3) == 2
    assert second.block_ids[:2] == first.block_ids[:2]
    assert counts(pool) == {BlockState.RUNNING: 4, BlockState.FREE: 4}


def test_block_computed_twice_is_kept_once() -> None:
    pool = pool_of()
    first, second = reserve(pool), reserve(pool)
    compute(pool, first)
    compute(pool, second)
    assert first.block_ids == second.block_ids
    assert counts(pool) == {BlockState.RUNNING: 3, BlockState.FREE: 5}
    first.release()
    assert counts(pool) == {BlockState.RUNNING: 3, BlockState.FREE: 5}


def test_block_computed_twice_stays_where_a_peer_reads_it() -> None:
    pool = pool_of()
    first, second = reserve(pool), reserve(pool)
    second.lease(1, 3)
    own = list(second.block_ids)
    compute(pool, first, num_tokens=8)
    compute(pool, second)
    assert second.block_ids == [first.block_ids[0], *own[1:]]
    assert second.num_named == 1
    second.release()
    assert counts(pool) == {BlockState.RUNNING: 3, BlockState.FREE: 5}


def test_leased_blocks_get_names_that_are_free() -> None:
    pool = pool_of()
    table = reserve(pool)
    table.lease(0, 3)
    compute(pool, table)
    assert table.num_named == 3
    assert reserve(pool).block_ids == table.block_ids


def test_reservation_without_room_holds_nothing() -> None:
    pool = pool_of(num_blocks=6)
    compute(pool, reserve(pool))
    other = BlockTable(pool, "", (*PROMPT[:4], *range(50, 66)))
    assert not other.try_reserve(5, max_shared=5)
    assert other.block_ids == []
    assert counts(pool) == {BlockState.RUNNING: 3, BlockState.FREE: 3}
    assert not other.try_reserve(4, max_shared=4, spare=1)
    assert other.try_reserve(4, max_shared=4)


def test_shared_blocks_are_not_evicted_for_the_rest_of_the_same_sequence() -> None:
    pool = pool_of(num_blocks=4)
    first = reserve(pool)
    compute(pool, first)
    first.release()
    second = reserve(pool, (*PROMPT[:8], *range(50, 58)))
    assert second.num_named == 2
    assert counts(pool) == {BlockState.RUNNING: 4}


def test_eviction_takes_the_end_of_a_chain_first() -> None:
    pool = pool_of(num_blocks=4)
    first = reserve(pool)
    compute(pool, first)
    first.release()
    reserve(pool, range(50, 58))
    assert reserve(pool, PROMPT[:8]).num_named == 2


def test_lease_and_quarantine_concern_one_holder_of_a_shared_block() -> None:
    pool = pool_of()
    first = reserve(pool)
    compute(pool, first)
    second = reserve(pool)
    assert first.lease(0, 2) == first.block_ids[:2]
    first.move(Hold.LEASED, Hold.QUARANTINED)
    assert first.held_as(Hold.QUARANTINED) == first.block_ids[:2]
    second.release()
    assert counts(pool) == {BlockState.QUARANTINED: 2, BlockState.RUNNING: 1, BlockState.FREE: 5}
    first.release()
    assert counts(pool) == {BlockState.CACHED: 3, BlockState.FREE: 5}


def test_appended_tokens_name_further_blocks() -> None:
    pool = pool_of()
    table = reserve(pool, PROMPT[:6])
    for token_id in PROMPT[6:]:
        table.append((token_id,))
    assert table.try_grow(1)
    compute(pool, table)
    table.release()
    assert reserve(pool).num_named == 3


# --- host tier


def with_evicted_prompt(num_host_blocks: int = 4) -> BlockPool:
    """A pool of four blocks that had PROMPT once; its KV is in host memory as far as there is room."""
    pool = pool_of(num_blocks=4, num_host_blocks=num_host_blocks)
    first = reserve(pool)
    compute(pool, first)
    first.release()
    reserve(pool, range(50, 66)).release()
    assert counts(pool) == {BlockState.FREE: 4}
    pool.begin_step()
    return pool


def test_evicted_blocks_come_back_with_their_contents() -> None:
    pool = with_evicted_prompt()
    pool.tensor.zero_()
    table = reserve(pool)
    assert (table.num_named, table.adopt(3)) == (0, 3)
    assert pool.tensor[table.block_ids[:3], 0, 0, 0, 0, 0].tolist() == [1.0, 2.0, 3.0]
    table.release()
    assert counts(pool) == {BlockState.CACHED: 3, BlockState.FREE: 1}
    assert reserve(pool).num_named == 3
    pool.check()


def test_small_host_keeps_the_beginning_of_a_chain() -> None:
    pool = with_evicted_prompt(num_host_blocks=2)
    assert reserve(pool).adopt(3) == 2
    assert pool.host is not None
    assert pool.host.num_dropped == 1


def test_blocks_to_come_back_are_not_dropped_for_those_evicted_to_make_room() -> None:
    pool = with_evicted_prompt(num_host_blocks=7)
    for first_token in (50, 70):  # the second evicts the first, which fills up the host
        other = reserve(pool, range(first_token, first_token + 16))
        compute(pool, other, 16)
        other.release()
    assert pool.host is not None
    assert pool.host.num_blocks == 7
    assert reserve(pool).adopt(3) == 3


def test_restored_blocks_of_a_leased_reservation_are_running() -> None:
    pool = with_evicted_prompt()
    table = reserve(pool, (*PROMPT, 99), hold=Hold.LEASED)
    assert table.adopt(3) == 3
    assert len(table.held_as(Hold.LEASED)) == 1
    pool.check()


def test_what_the_step_s_budget_leaves_comes_with_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.kv.pool.COPY_BYTES_PER_STEP", 1)
    pool = pool_of(num_blocks=4, num_host_blocks=4)
    first = reserve(pool)
    compute(pool, first)
    first.release()
    for num_blocks in (2, 3, 4):  # one more is evicted in each step
        pool.begin_step()
        other = BlockTable(pool, "", ())
        assert other.try_grow(num_blocks)
        other.release()
    pool.begin_step()
    table = reserve(pool)
    for num_named in (1, 2, 3):
        assert table.adopt(3) == num_named
        assert table.is_awaiting_host(3) == (num_named < 3)
        pool.begin_step()
    assert not table.is_awaiting_host(3)
