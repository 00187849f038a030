import hypothesis.strategies as st
from hypothesis import given

from core.blocks import BlockChain, BlockName, root_name
from router.dispatch.prompt_names import PromptNames


def names_of(tokens: list[int], fingerprint: str, salt: str, block_tokens: int) -> list[BlockName]:
    chain = BlockChain(root_name(fingerprint, salt), block_tokens)
    chain.extend(tokens)
    return chain.names


@given(
    tokens=st.lists(st.integers(0, 9), max_size=40),
    cuts=st.lists(st.integers(0, 40), max_size=4),
    block_tokens=st.integers(1, 8),
)
def test_names_of_a_growing_prompt_are_those_of_the_whole(
    tokens: list[int], cuts: list[int], block_tokens: int
) -> None:
    names = PromptNames("tenant")
    for cut in sorted(cuts):
        prompt = tokens[:cut]
        assert list(names.of(prompt, "model", block_tokens)) == names_of(prompt, "model", "tenant", block_tokens)


def test_workers_of_other_block_sizes_and_models_have_names_of_their_own() -> None:
    names, prompt = PromptNames(""), list(range(20))
    by_kind = {
        (fingerprint, size): tuple(names.of(prompt, fingerprint, size)) for fingerprint in "ab" for size in (4, 8)
    }
    for (fingerprint, size), found in by_kind.items():
        assert list(found) == names_of(prompt, fingerprint, "", size)
    assert len(set(by_kind.values())) == 4
