"""A frozen scan equals the mixer, is linear in its values, and agrees with an explicit hidden attention matrix."""

import pytest
import torch
import torch.nn.functional as F

from models.blocks.mixers import BiMamba
from models.frozen_scan import frozen_scan


@pytest.fixture
def mixer():
    return BiMamba(8, 1, d_state=3, d_conv=4, expand=2)


@pytest.fixture
def tokens():
    return torch.randn(2, 7, 8)


def test_outputs_add_up_to_the_mixer(mixer, tokens):
    torch.testing.assert_close(sum(frozen_scan(mixer, tokens).outputs), mixer(tokens), atol=1e-5, rtol=1e-4)


def test_values_times_gradient_is_the_output_itself(mixer, tokens):
    """The output is linear in the values, so the tokens' contributions add up to it (Euler's theorem)."""
    scan, weight = frozen_scan(mixer, tokens), torch.randn(2, 7, 8)
    for values, output in zip(scan.values, scan.outputs, strict=True):
        score = (output * weight).sum()
        (gradient,) = torch.autograd.grad(score, values)
        torch.testing.assert_close((gradient * values).sum(), score, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("direction", "suffix"), [(0, ""), (1, "_b")])
def test_gradient_is_the_hidden_attention_written_out(mixer, tokens, direction, suffix):
    """d y_t / d u_j of one channel, from step sizes and products of decays, for every pair of positions."""
    scan, weights = frozen_scan(mixer, tokens), mixer.direction(suffix)
    values = scan.values[direction]
    weight = torch.randn(2, 7, 8)
    (gradient,) = torch.autograd.grad((scan.outputs[direction] * weight).sum(), values)
    with torch.no_grad():
        z = mixer.in_proj(tokens).transpose(1, 2).chunk(2, dim=1)[1]
        dt, B, C = weights.split_projection(F.linear(values.transpose(1, 2), weights.x_proj))
        delta = F.softplus(F.linear(dt, weights.dt_proj) + weights.dt_bias)  # (B, L, I)
        dy = weight @ mixer.out_proj.weight / 2 * F.silu(z).transpose(1, 2)  # (B, L, I)
        expected = torch.einsum("bli,i->bil", dy, weights.D)
        for j in range(7):
            places = range(j, 7) if suffix == "" else range(j, -1, -1)
            for t in places:
                passed = delta[:, j + 1 : t + 1] if suffix == "" else delta[:, t:j]
                decay = torch.exp(passed.sum(1)[..., None] * weights.A)  # (B, I, N)
                read = torch.einsum("bn,bin,bi,bn->bi", C[:, t], decay, delta[:, j], B[:, j])
                expected[..., j] += dy[:, t] * read
    torch.testing.assert_close(gradient, expected, atol=1e-5, rtol=1e-3)
