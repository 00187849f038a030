"""Each native kernel against plain torch in float32, and what torch does not promise: rows keep to themselves."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the name everyone knows it by

from engine.kernels.build import KernelsUnavailableError
from engine.kernels.native import NativeKernels, PackedWeight, native_kernels
from engine.layers.paged_kv import PagedKv
from engine.layers.rope import RotaryEmbedding, rotate_

BF16 = torch.bfloat16


@pytest.fixture(params=[1, 2], ids=["one-thread", "two-threads"])
def kernels(request: pytest.FixtureRequest) -> NativeKernels:
    try:
        return native_kernels(request.param)
    except KernelsUnavailableError as error:
        pytest.skip(f"no native kernels here: {error}")


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(BF16)


def packed(kernels: NativeKernels, weight: Tensor) -> PackedWeight:
    into = PackedWeight.empty(*weight.shape)
    kernels.pack(weight, into)
    return into


def packed_gate_up(kernels: NativeKernels, gate: Tensor, up: Tensor) -> PackedWeight:
    into = PackedWeight.empty(2 * gate.shape[0], gate.shape[1])
    kernels.pack(gate, into, 0, 2)
    kernels.pack(up, into, 1, 2)
    return into


def assert_close(actual: Tensor, expected: Tensor) -> None:
    """To the precision of bfloat16 results of float32 sums."""
    torch.testing.assert_close(actual.float(), expected, rtol=2**-7, atol=2**-7 * float(expected.abs().max()) / 4)


@pytest.mark.parametrize("num_tokens", [0, 1, 15, 16, 17, 32, 33, 100])
@pytest.mark.parametrize("shape", [(16, 32), (48, 64), (160, 96), (33, 32), (64, 1056)])
def test_linear(kernels: NativeKernels, num_tokens: int, shape: tuple[int, int]) -> None:
    x, weight, bias = random(num_tokens, shape[1]), random(*shape, seed=1), random(shape[0], seed=2)
    tiles = packed(kernels, weight)
    expected = F.linear(x.float(), weight.float())
    torch.testing.assert_close(kernels.linear(x, tiles, dtype=torch.float32), expected, rtol=1e-4, atol=1e-3)
    if num_tokens:
        assert_close(kernels.linear(x, tiles, bias), expected + bias.float())


def test_linear_of_a_row_does_not_depend_on_the_rows_beside_it(kernels: NativeKernels) -> None:
    x, tiles = random(70, 1056), packed(kernels, random(64, 1056, seed=1))
    whole = kernels.linear(x, tiles, dtype=torch.float32)
    for rows in (slice(0, 1), slice(5, 21), slice(30, 63), slice(69, 70)):
        assert torch.equal(kernels.linear(x[rows], tiles, dtype=torch.float32), whole[rows])


def test_linear_takes_rows_that_are_not_adjacent(kernels: NativeKernels) -> None:
    x, weight = random(20, 64), random(32, 32, seed=1)
    assert torch.equal(
        kernels.linear(x[:, :32], packed(kernels, weight)),
        kernels.linear(x[:, :32].contiguous(), packed(kernels, weight)),
    )


@pytest.mark.parametrize("with_bias", [False, True])
def test_gated_linear(kernels: NativeKernels, with_bias: bool) -> None:
    x, gate, up = random(37, 64), random(48, 64, seed=1), random(48, 64, seed=2)
    bias = random(96, seed=3) if with_bias else None
    parts = bias.float().chunk(2) if bias is not None else (None, None)
    expected = F.silu(F.linear(x.float(), gate.float(), parts[0])) * F.linear(x.float(), up.float(), parts[1])
    assert_close(kernels.gated_linear(x, packed_gate_up(kernels, gate, up), bias), expected)


def test_embed_finds_the_rows_of_a_packed_weight(kernels: NativeKernels) -> None:
    weight = random(50, 96)
    ids = torch.tensor([49, 0, 16, 15, 31, 16])
    assert torch.equal(kernels.embed(ids, packed(kernels, weight)), weight[ids])


def test_route_matches_the_torch_router(kernels: NativeKernels) -> None:
    x, weight = random(50, 64), torch.randn(8, 64, generator=torch.Generator().manual_seed(1))
    correction = torch.randn(1, 8, generator=torch.Generator().manual_seed(2)) * 0.2
    counts = torch.full((8,), 1000)
    experts, weights = kernels.route(x, weight, correction, top_k=3, norm_min=1e-12, num_tokens=counts)
    assert torch.equal(counts - 1000, experts.view(-1).bincount(minlength=8))
    probabilities = torch.softmax(F.linear(x.float(), weight), dim=-1)
    expected = (probabilities + correction).topk(3).indices
    assert torch.equal(experts, expected)
    chosen = probabilities.gather(-1, expected)
    torch.testing.assert_close(weights, chosen / chosen.sum(-1, keepdim=True))


class Experts:
    """Eight experts of 64 -> 32 -> 64."""

    def __init__(self, kernels: NativeKernels) -> None:
        self.kernels = kernels
        self.gate, self.up, self.down = (
            random(8, 32, 64, seed=1),
            random(8, 32, 64, seed=2),
            random(8, 64, 32, seed=3),
        )
        self.gate_up = PackedWeight.empty(8 * 64, 64)
        self.packed_down = PackedWeight.empty(8 * 64, 32)
        for expert in range(8):
            kernels.pack(self.gate[expert], self.gate_up.part(expert, 8), 0, 2)
            kernels.pack(self.up[expert], self.gate_up.part(expert, 8), 1, 2)
            kernels.pack(self.down[expert], self.packed_down.part(expert, 8))

    def __call__(self, x: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
        return self.kernels.experts(x, experts, weights, gate_up=self.gate_up, down=self.packed_down, num_experts=8)

    def expected(self, x: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
        out = torch.zeros(x.shape)
        for token, (chosen, shares) in enumerate(zip(experts.tolist(), weights.tolist(), strict=True)):
            for expert, share in zip(chosen, shares, strict=True):
                if expert >= 0:
                    hidden = F.silu(self.gate[expert].float() @ x[token].float()) * (
                        self.up[expert].float() @ x[token].float()
                    )
                    out[token] += share * (self.down[expert].float() @ hidden)
        return out


def choices(num_tokens: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(num_tokens)
    return torch.rand(num_tokens, 8, generator=generator).topk(3).indices, torch.rand(
        num_tokens, 3, generator=generator
    )


@pytest.mark.parametrize("num_tokens", [0, 1, 2, 30, 150])
def test_experts(kernels: NativeKernels, num_tokens: int) -> None:
    block, x = Experts(kernels), random(num_tokens, 64)
    actual, expected = block(x, *choices(num_tokens)), block.expected(x, *choices(num_tokens))
    if num_tokens:
        assert_close(actual, expected)
    else:
        assert actual.shape == (0, 64)


def test_experts_of_a_token_do_not_depend_on_other_tokens(kernels: NativeKernels) -> None:
    block, x, (experts, weights) = Experts(kernels), random(100, 64), choices(100)
    whole = block(x, experts, weights)
    for rows in (slice(0, 1), slice(40, 57)):
        assert torch.equal(
            block(x[rows].contiguous(), experts[rows].contiguous(), weights[rows].contiguous()), whole[rows]
        )


def test_negative_experts_are_left_out(kernels: NativeKernels) -> None:
    block, x, (experts, weights) = Experts(kernels), random(40, 64), choices(40)
    experts[::2, 1] = -1
    experts[7] = -1
    actual = block(x, experts, weights)
    assert_close(actual, block.expected(x, experts, weights))
    assert not actual[7].any()


@pytest.mark.parametrize("has_delta", [False, True])
def test_add_rms_norm(kernels: NativeKernels, has_delta: bool) -> None:
    x, weight = random(20, 96).float(), random(96, seed=1)
    delta = random(20, 96, seed=2).float() if has_delta else None
    total = x + delta if delta is not None else x.clone()
    out = kernels.add_rms_norm(x, delta, weight, 1e-5)
    assert torch.equal(x, total)
    assert_close(out, F.rms_norm(total, (96,), weight.float(), 1e-5))


class Cache:
    """A pool of random blocks of two layers and two KV heads."""

    def __init__(self, block_tokens: int = 16, head_dim: int = 32) -> None:
        self.pool = random(40, 2, 2, 2, block_tokens, head_dim, seed=9)
        self.paged = PagedKv(self.pool)
        self.block_tokens = block_tokens

    def table(self, length: int, seed: int) -> Tensor:
        return torch.randperm(40, generator=torch.Generator().manual_seed(seed))[: -(-length // self.block_tokens)]

    def keys_and_values(self, layer: int, table: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Each `[kv_heads, length, head_dim]`, float32."""
        blocks = self.pool[table, layer].float()  # [blocks, 2, kv_heads, block_tokens, head_dim]
        keys, values = blocks.permute(1, 2, 0, 3, 4).reshape(2, 2, -1, 32)[:, :, :length]
        return keys, values


def test_rotate_and_store(kernels: NativeKernels) -> None:
    cache, heads = Cache(), random(20, 4 + 2 * 2, 32)
    expected = heads.clone()
    rotations = RotaryEmbedding(32, 10_000.0, "cpu").rotations(torch.arange(100, 120))
    rotate_(expected[:, :6], rotations)
    block_ids, offsets = torch.arange(20) % 3 + 5, torch.arange(20) // 3
    kernels.rotate_and_store(heads, rotations, 1, cache.paged, block_ids=block_ids, offsets=offsets)
    torch.testing.assert_close(heads.float(), expected.float(), rtol=2**-7, atol=1e-3)
    stored = cache.pool[block_ids, 1, :, :, offsets]  # [num_tokens, 2, kv_heads, head_dim]
    assert torch.equal(stored, heads[:, 4:].view(20, 2, 2, 32))


@pytest.mark.parametrize("group", [1, 3, 4, 5, 8, 16])
@pytest.mark.parametrize("block_tokens", [16, 32])
def test_attend_tokens(kernels: NativeKernels, group: int, block_tokens: int) -> None:
    cache, lengths = Cache(block_tokens), [1, 15, 16, 17, 200, 640]
    tables = [cache.table(length, seed) for seed, length in enumerate(lengths)]
    begins = torch.tensor([0, *(len(table) for table in tables[:-1])]).cumsum(0)
    queries = random(len(lengths), 2, group + 2, 32)[:, :, :group].contiguous()
    out = kernels.attend_tokens(
        queries, 1, cache.paged, tables=torch.cat(tables), table_begins=begins, lengths=torch.tensor(lengths)
    )
    for query, actual, table, length in zip(queries, out, tables, lengths, strict=True):
        keys, values = cache.keys_and_values(1, table, length)
        expected = F.scaled_dot_product_attention(query.float(), keys, values)
        torch.testing.assert_close(actual.float(), expected, rtol=2**-6, atol=2**-8)


@pytest.mark.parametrize(("start", "num_tokens"), [(0, 1), (0, 2), (0, 130), (1, 7), (127, 40), (300, 340)])
@pytest.mark.parametrize("group", [1, 3, 4])
def test_attend_chunk(kernels: NativeKernels, start: int, num_tokens: int, group: int) -> None:
    cache, end = Cache(), start + num_tokens
    table, queries = cache.table(end, 3), random(num_tokens, 2, group, 32)
    out = kernels.attend_chunk(queries, 0, cache.paged, start=start, table=table)
    keys, values = cache.keys_and_values(0, table, end)
    mask = torch.ones(num_tokens, end, dtype=torch.bool).tril(start)
    for head in range(2):
        for member in range(group):
            expected = F.scaled_dot_product_attention(
                queries[None, :, head, member].float(), keys[None, head], values[None, head], attn_mask=mask
            )
            torch.testing.assert_close(out[:, head, member].float(), expected[0], rtol=2**-6, atol=2**-7)


def test_a_chunk_of_a_sequence_gives_what_the_whole_gives(kernels: NativeKernels) -> None:
    cache, queries = Cache(), random(400, 2, 4, 32)
    table = cache.table(400, 3)
    whole = kernels.attend_chunk(queries, 0, cache.paged, start=0, table=table)
    for start, end in ((0, 100), (100, 101), (101, 399)):
        part = kernels.attend_chunk(queries[start:end], 0, cache.paged, start=start, table=table)
        assert torch.equal(part, whole[start:end])


@pytest.mark.parametrize("group", [1, 3, 4, 7, 16])
@pytest.mark.parametrize("head_dim", [32, 64, 96, 128])
def test_a_token_alone_gives_what_it_gives_in_a_chunk(kernels: NativeKernels, group: int, head_dim: int) -> None:
    cache = Cache(head_dim=head_dim)
    length, queries = 300, random(300, 2, group, head_dim)
    table = cache.table(length, 3)
    chunk = kernels.attend_chunk(queries, 0, cache.paged, start=0, table=table)
    positions = [0, 1, 15, 16, 31, 32, 100, 127, 128, 129, 255, 256, 299]
    alone = kernels.attend_tokens(
        queries[positions].contiguous(),
        0,
        cache.paged,
        tables=table,
        table_begins=torch.zeros(len(positions), dtype=torch.int64),
        lengths=torch.tensor(positions) + 1,
    )
    assert torch.equal(alone, chunk[positions])


def test_what_lies_behind_a_sequence_in_its_last_block_does_not_matter(kernels: NativeKernels) -> None:
    cache, queries = Cache(), random(20, 2, 4, 32)
    table = cache.table(20, 3)
    lengths = {"table_begins": torch.tensor([0]), "lengths": torch.tensor([20])}
    chunk = kernels.attend_chunk(queries, 0, cache.paged, start=0, table=table)
    token = kernels.attend_tokens(queries[-1:], 0, cache.paged, tables=table, **lengths)
    cache.pool[table[1], :, :, :, 4:] = torch.nan
    assert torch.equal(kernels.attend_chunk(queries, 0, cache.paged, start=0, table=table), chunk)
    assert torch.equal(kernels.attend_tokens(queries[-1:], 0, cache.paged, tables=table, **lengths), token)
