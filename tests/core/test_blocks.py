import hypothesis.strategies as st
from hypothesis import given

from core.blocks import NAME_BYTES, BlockChain, BlockName, root_name

BLOCK_TOKENS = 4
ROOT = root_name("model", "")

tokens = st.lists(st.integers(0, 2**32 - 1), max_size=30)


def names_of(token_ids: list[int], root: BlockName = ROOT, block_tokens: int = BLOCK_TOKENS) -> list[BlockName]:
    chain = BlockChain(root, block_tokens)
    chain.extend(token_ids)
    return chain.names


@given(tokens, st.data())
def test_names_do_not_depend_on_how_tokens_arrive(token_ids: list[int], data: st.DataObject) -> None:
    chain = BlockChain(ROOT, BLOCK_TOKENS)
    rest = list(token_ids)
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        chain.extend(rest[:size])
        del rest[:size]
    assert chain.names == names_of(token_ids)
    assert len(chain.names) == len(token_ids) // BLOCK_TOKENS


@given(tokens, tokens)
def test_names_are_equal_exactly_as_far_as_the_tokens_are(first: list[int], second: list[int]) -> None:
    for i, (a, b) in enumerate(zip(names_of(first), names_of(second), strict=False), start=1):
        assert (a == b) == (first[: i * BLOCK_TOKENS] == second[: i * BLOCK_TOKENS])


def test_equal_blocks_at_different_places_have_different_names() -> None:
    names = names_of([7] * 5 * BLOCK_TOKENS)
    assert len(set(names)) == 5
    assert {len(name) for name in names} == {NAME_BYTES}


def test_models_and_tenants_share_no_name() -> None:
    roots = [root_name(*pair) for pair in [("m", ""), ("m", "a"), ("m", "b"), ("n", ""), ("ma", ""), ("", "ma")]]
    names = [name for root in roots for name in names_of(list(range(12)), root)]
    assert len(set(names)) == len(names) == 3 * len(roots)


def test_names_are_the_same_on_every_machine() -> None:
    """A router and its workers may differ in byte order and version of Python."""
    assert [name.hex() for name in names_of(list(range(8)))] == [
        "05b96e5ed2adbb4490b979fb90302cb8",
        "5631283d732b0b9f350cb9224589d6e6",
    ]
