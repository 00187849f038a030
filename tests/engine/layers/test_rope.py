import torch
from transformers import Ernie4_5Config
from transformers.models.ernie4_5.modeling_ernie4_5 import Ernie4_5RotaryEmbedding, apply_rotary_pos_emb

from engine.layers.rope import RotaryEmbedding, rotate_


def test_rotation_matches_transformers() -> None:
    theirs = Ernie4_5RotaryEmbedding(Ernie4_5Config(hidden_size=64, num_attention_heads=4, head_dim=16))
    positions = torch.tensor([0, 1, 2, 77, 4095, 131071])
    heads = torch.randn(6, 3, 16, generator=torch.Generator().manual_seed(0))
    cos, sin = theirs(heads, positions[None])
    expected, _ = apply_rotary_pos_emb(heads[None], heads[None], cos, sin, unsqueeze_dim=2)
    rotate_(heads, RotaryEmbedding(16, 500_000.0, "cpu").rotations(positions))
    torch.testing.assert_close(heads, expected[0])


def test_rotation_of_a_slice_leaves_the_rest() -> None:
    heads = torch.randn(2, 5, 8).to(torch.bfloat16)
    before = heads.clone()
    rotate_(heads[:, :3], RotaryEmbedding(8, 100.0, "cpu").rotations(torch.tensor([3, 9])))
    assert torch.equal(heads[:, 3:], before[:, 3:])
    assert not torch.equal(heads[:, :3], before[:, :3])
