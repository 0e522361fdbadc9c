import pytest
import torch
import torch.nn.functional as F

from models import create_model
from models.blocks.mamba2 import Mamba2
from tests.conftest import SMALL


def mixer(**fields):
    defaults = {"d_state": 4, "d_conv": 4, "expand": 2, "head_dim": 8, "directions": "both", "backend": "reference"}
    return Mamba2(12, 2, **{**defaults, **fields}).double()


def mamba_ssm_mixer(m, tokens):
    """mamba_ssm's Mamba2 with one group, step by step: in_proj to [z, x, B, C, dt], one convolution of [x, B, C], gate
    before the norm."""
    inner, states, heads = 24, 4, 3
    z, xBC, dt = m.in_proj(tokens).split([inner, inner + 2 * states, heads], dim=-1)
    weight = m.conv1d.weight
    xBC = F.silu(F.conv1d(F.pad(xBC.mT, (3, 0)), weight, m.conv1d.bias, groups=weight.shape[0])).mT
    x, B, C = xBC.split([inner, states, states], dim=-1)
    dt = F.softplus(dt + m.dt_bias)
    state, out = torch.zeros(len(tokens), heads, 8, states, dtype=tokens.dtype), []
    for t in range(tokens.shape[1]):
        x_t = x[:, t].unflatten(-1, (heads, 8))
        state = state * torch.exp(-m.A_log.exp() * dt[:, t])[..., None, None]
        state = state + torch.einsum("bh,bhp,bn->bhpn", dt[:, t], x_t, B[:, t])
        out.append((torch.einsum("bhpn,bn->bhp", state, C[:, t]) + m.D[:, None] * x_t).flatten(1))
    y = torch.stack(out, dim=1) * F.silu(z)
    return m.out_proj(y * (y.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * m.norm.weight)


def test_one_direction_is_mamba_ssms():
    m, tokens = mixer(directions="forward"), torch.randn(2, 9, 12, dtype=torch.float64)
    torch.nn.init.uniform_(m.norm.weight)
    torch.nn.init.uniform_(m.D)
    torch.testing.assert_close(m(tokens), mamba_ssm_mixer(m, tokens))
    shapes = {name: tuple(p.shape) for name, p in m.named_parameters()}
    assert shapes == {
        "in_proj.weight": (24 + 24 + 4 + 4 + 3, 12), "conv1d.weight": (32, 1, 4), "conv1d.bias": (32,),
        "dt_bias": (3,), "A_log": (3,), "D": (3,), "norm.weight": (24,), "out_proj.weight": (12, 24),
    }  # fmt: skip


def swap_directions(m):
    state = m.state_dict()
    swapped = {"out_proj.weight": state["out_proj.weight"]}
    shared, own = state["in_proj.weight"].split([48, 11])
    swapped["in_proj.weight"], swapped["in_proj_b.weight"] = torch.cat([shared, state["in_proj_b.weight"]]), own
    for forward, backward in (
        ("conv1d.weight", "conv1d_b.weight"), ("conv1d.bias", "conv1d_b.bias"), ("dt_bias", "dt_bias_b"),
        ("A_log", "A_b_log"), ("D", "D_b"), ("norm.weight", "norm_b.weight"),
    ):  # fmt: skip
        swapped[forward], swapped[backward] = state[backward], state[forward]
    other = mixer()
    other.load_state_dict(swapped)
    return other


def test_reversed_tokens_with_swapped_directions_give_reversed_output():
    m, tokens = mixer(), torch.randn(2, 9, 12, dtype=torch.float64)
    torch.testing.assert_close(swap_directions(m)(tokens.flip(1)), m(tokens).flip(1))
    assert (m(tokens.flip(1)) - m(tokens).flip(1)).abs().max() > 1e-3  # the directions differ, so the test can fail


def test_output_is_the_mean_of_the_directions():
    m, tokens = mixer(), torch.randn(1, 9, 12, dtype=torch.float64)
    alone, mirrored = mixer(directions="forward"), mixer(directions="forward")
    for single, source in ((alone, m), (mirrored, swap_directions(m))):
        single.load_state_dict({name: source.state_dict()[name] for name in single.state_dict()})
    expected = (alone(tokens) + mirrored(tokens.flip(1)).flip(1)) / 2
    torch.testing.assert_close(m(tokens), expected)


@pytest.mark.parametrize("directions", ["forward", "both"])
def test_which_positions_see_a_changed_token(directions):
    m, tokens = mixer(directions=directions), torch.randn(1, 9, 12, dtype=torch.float64)
    changed = tokens.clone()
    changed[:, 4] += 1
    difference = (m(changed) - m(tokens)).abs().amax(-1)[0]
    assert (difference[4:] > 1e-12).all()
    assert (difference[:4] > 1e-12).all() if directions == "both" else (difference[:4] == 0).all()


def test_initial_step_sizes_and_decays():
    model = create_model("mae_3d_bivim2_small_patch8", **SMALL)
    parameters = dict(model.named_parameters())
    biases = [p for name, p in parameters.items() if "dt_bias" in name]
    assert len(biases) == 2 * (SMALL["depth"] + SMALL["decoder_depth"])
    steps = F.softplus(torch.cat(biases))
    assert steps.min() >= 1e-3 * 0.999
    assert steps.max() <= 1e-1 * 1.001
    assert steps.log().std() > 0.5
    rates = torch.cat([p for name, p in parameters.items() if name.endswith(("A_log", "A_b_log"))]).exp()
    assert (rates.min() >= 1, rates.max() <= 16, rates.std() > 1) == (True, True, True)


def test_heads_must_divide_the_inner_width():
    with pytest.raises(ValueError, match=r"inner width 24 .* head_dim=7"):
        mixer(head_dim=7)


def test_bf16_autocast_stays_close_and_trains_every_parameter():
    m, tokens = mixer(backend="auto").float(), torch.randn(2, 70, 12)
    expected = m(tokens)
    with torch.autocast("cpu", torch.bfloat16):
        out = m(tokens)
    assert out.dtype == torch.bfloat16
    assert (out.float() - expected).abs().max() < 0.03 * expected.abs().max()
    out.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.dtype == torch.float32 for p in m.parameters())
