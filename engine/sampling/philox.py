"""Random numbers without state: Philox4x64-10 for many keys at once, in integer tensor arithmetic.

Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC'11; the bits are those of Random123 and of
`numpy.random.Philox`. int64 stands for uint64: sums and products keep the same low bits, and right shifts are masked.
"""

import torch
from torch import Tensor

_NUM_ROUNDS = 10
_LOW_32 = 0xFFFFFFFF


def _as_int64(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


_MULTIPLIERS = torch.tensor([_as_int64(0xD2E7470EE14C6C93), _as_int64(0xCA5A826395121157)])
_WEYL = torch.tensor([_as_int64(0x9E3779B97F4A7C15), _as_int64(0xBB67AE8584CAA73B)])


def philox(counters: Tensor, keys: Tensor) -> Tensor:
    """The generator's block function for `n` counters and keys.

    Args:
        counters: `[4, n]` int64, least significant word first.
        keys: `[2, n]` int64.

    Returns:
        `[4, n]` int64, each 64 random bits.
    """
    multipliers, weyl = _MULTIPLIERS.to(keys.device)[:, None], _WEYL.to(keys.device)[:, None]
    even, odd = counters[0::2], counters[1::2]  # [2, n] each: words 0 and 2, words 1 and 3
    for _ in range(_NUM_ROUNDS):
        high, low = _multiply(even, multipliers)
        # Each half's product goes to the other half.
        even, odd = high.flip(0) ^ odd ^ keys, low.flip(0)
        keys = keys + weyl
    return torch.stack((even[0], odd[0], even[1], odd[1]))


def uniforms(seeds: Tensor, positions: Tensor) -> Tensor:
    """Random numbers in [0, 1), each a function of its seed and its position alone; 53 random bits.

    The first number that `numpy.random.Philox(key=seed, counter=position)` gives, which counts before it draws.

    Args:
        seeds: `[n]` int64, in [0, 2**63).
        positions: `[n]` int64, in [0, 2**63).

    Returns:
        `[n]` float64.
    """
    zeros = torch.zeros_like(seeds)
    bits = philox(torch.stack((positions + 1, zeros, zeros, zeros)), torch.stack((seeds, zeros)))[0]
    return _shift_right(bits, 11).double() * 2.0**-53


def _multiply(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """High and low 64 bits of the 128-bit products, from products of 32-bit halves."""
    a_low, a_high = a & _LOW_32, _shift_right(a, 32)
    b_low, b_high = b & _LOW_32, _shift_right(b, 32)
    low_high, high_low = a_low * b_high, a_high * b_low
    middle = _shift_right(a_low * b_low, 32) + (low_high & _LOW_32) + (high_low & _LOW_32)
    carry = _shift_right(low_high, 32) + _shift_right(high_low, 32) + _shift_right(middle, 32)
    return a_high * b_high + carry, a * b


def _shift_right(bits: Tensor, num_bits: int) -> Tensor:
    """A logical shift: zeros come in from the left."""
    return (bits >> num_bits) & ((1 << (64 - num_bits)) - 1)
