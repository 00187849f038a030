import pytest
import torch

from engine.layers.linear import MAX_TRANSPOSED_TOKENS, linear


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("num_tokens", [0, 1, 2, MAX_TRANSPOSED_TOKENS, MAX_TRANSPOSED_TOKENS + 1])
@pytest.mark.parametrize("use_bias", [False, True])
def test_every_form_computes_the_same(dtype: torch.dtype, num_tokens: int, use_bias: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (
        torch.randn(shape, generator=generator).to(dtype) for shape in ((num_tokens, 24), (10, 24), (10,))
    )
    out = linear(x, weight, bias if use_bias else None)
    expected = x.double() @ weight.double().T + (bias.double() if use_bias else 0)
    assert out.is_contiguous()
    assert out.dtype == dtype
    torch.testing.assert_close(out.double(), expected, rtol=0.02, atol=0.1 if dtype == torch.bfloat16 else 0.02)
