import pytest
import torch
import torch.nn.functional as F

from models.blocks.conv_attention import ConvAttention


def attention(**fields):
    return ConvAttention(12, 2, **{"num_heads": 2, "head_dim": 5, "d_conv": 4, **fields}).double()


def test_it_is_softmax_attention_of_convolved_queries_keys_and_values():
    m, tokens = attention(), torch.randn(2, 7, 12, dtype=torch.float64)
    padded = F.pad(m.in_proj(tokens).mT, (3, 0))
    q, k, v = F.conv1d(padded, m.conv1d.weight, m.conv1d.bias, groups=30).mT.chunk(3, dim=-1)
    heads = []
    for head in (slice(0, 5), slice(5, 10)):
        scores = q[..., head] @ k[..., head].mT / 5**0.5
        heads.append(scores.softmax(-1) @ v[..., head])
    torch.testing.assert_close(m(tokens), m.out_proj(torch.cat(heads, dim=-1)))


def test_parameters_are_those_of_mamba_ssms_mha_without_biases():
    shapes = {name: tuple(p.shape) for name, p in attention().named_parameters()}
    assert shapes == {
        "in_proj.weight": (30, 12), "conv1d.weight": (30, 1, 4), "conv1d.bias": (30,), "out_proj.weight": (12, 10)
    }  # fmt: skip


def test_every_position_sees_every_other():
    """The convolution is causal, the attention is not."""
    m, tokens = attention(), torch.randn(1, 9, 12, dtype=torch.float64)
    changed = tokens.clone()
    changed[:, 8] += 1
    assert ((m(changed) - m(tokens)).abs().amax(-1) > 1e-12).all()


@pytest.mark.parametrize("d_conv", [1, 4])
def test_order_matters_through_the_convolution(d_conv):
    m, tokens, order = attention(d_conv=d_conv), torch.randn(1, 9, 12, dtype=torch.float64), torch.randperm(9)
    difference = (m(tokens[:, order]) - m(tokens)[:, order]).abs().max()
    assert difference < 1e-12 if d_conv == 1 else difference > 1e-4
