import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.sampling.philox import philox, uniforms

seeds = st.integers(0, 2**63 - 1)
positions = st.integers(0, 2**40)


def words(hexadecimal: str) -> torch.Tensor:
    """`[n, 1]` int64 of unsigned 64-bit words."""
    bits = np.array([int(word, 16) for word in hexadecimal.split()], dtype=np.uint64)
    return torch.from_numpy(bits.view(np.int64))[:, None]


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        (
            "0 0 0 0",
            "0 0",
            "16554d9eca36314c db20fe9d672d0fdc d7e772cee186176b 7e68b68aec7ba23b",
        ),
        (
            "ffffffffffffffff ffffffffffffffff ffffffffffffffff ffffffffffffffff",
            "ffffffffffffffff ffffffffffffffff",
            "87b092c3013fe90b 438c3c67be8d0224 9cc7d7c69cd777b6 a09caebf594f0ba0",
        ),
        (
            "243f6a8885a308d3 13198a2e03707344 a4093822299f31d0 082efa98ec4e6c89",
            "452821e638d01377 be5466cf34e90c6c",
            "a528f45403e61d95 38c72dbd566e9788 a5a1610e72fd18b5 57bd43b5e52b7fe6",
        ),
    ],
    ids=["zeros", "ones", "pi"],
)
def test_known_answers_of_random123(counter: str, key: str, expected: str) -> None:
    """The vectors that Random123 ships for philox4x64 with 10 rounds."""
    assert torch.equal(philox(words(counter), words(key)), words(expected))


@given(st.lists(st.tuples(seeds, positions), min_size=1, max_size=20))
def test_numbers_are_those_of_numpy(pairs: list[tuple[int, int]]) -> None:
    drawn = uniforms(*torch.tensor(pairs).T)
    expected = [
        (np.random.Philox(key=seed, counter=position).random_raw() >> 11) * 2.0**-53 for seed, position in pairs
    ]
    assert drawn.tolist() == expected


def test_numbers_are_pinned() -> None:
    """Workers of different versions must continue each other's requests: a change here breaks that."""
    assert uniforms(torch.tensor([0, 1, 0]), torch.tensor([0, 0, 1])).tolist() == [
        0.011546754286331562,
        0.3035680343067586,
        0.5023796042735054,
    ]


@given(seeds, positions)
def test_neighbouring_seeds_and_positions_give_other_numbers(seed: int, position: int) -> None:
    here, next_position, next_seed = uniforms(
        torch.tensor([seed, seed, (seed + 1) % 2**63]), torch.tensor([position, position + 1, position])
    ).tolist()
    assert 0.0 <= here < 1.0
    assert len({here, next_position, next_seed}) == 3
