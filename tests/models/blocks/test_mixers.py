import pytest
import torch
import torch.nn.functional as F

from models import create_model
from models.blocks.mixers import Attention, BiMamba
from ops.reference.bimamba import one_direction
from ops.reference.conv import causal_conv1d
from ops.reference.scan import selective_scan
from tests.conftest import SMALL


def mixer(**fields):
    return BiMamba(12, 2, **{"d_state": 4, "d_conv": 4, "expand": 2, **fields}).double()


def swap_directions(m):
    state = m.state_dict()
    swapped = {}
    for name, value in state.items():
        if name in ("A_log", "A_b_log"):
            swapped[{"A_log": "A_b_log", "A_b_log": "A_log"}[name]] = value
        elif name in ("D", "D_b"):
            swapped[{"D": "D_b", "D_b": "D"}[name]] = value
        elif "_b." in name:
            swapped[name.replace("_b.", ".")] = value
        elif name.split(".")[0] in ("conv1d", "x_proj", "dt_proj"):
            swapped[name.replace(".", "_b.", 1)] = value
        else:
            swapped[name] = value
    other = mixer()
    other.load_state_dict(swapped)
    return other


def test_reversed_tokens_with_swapped_directions_give_reversed_output():
    m, tokens = mixer(), torch.randn(2, 9, 12, dtype=torch.float64)
    torch.testing.assert_close(swap_directions(m)(tokens.flip(1)), m(tokens).flip(1))
    assert (m(tokens.flip(1)) - m(tokens).flip(1)).abs().max() > 1e-3  # the directions differ, so the test can fail


def test_each_direction_reads_its_own_side():
    m, tokens = mixer(), torch.randn(1, 9, 12, dtype=torch.float64)
    changed = tokens.clone()
    changed[:, 4] += 1
    difference = (m(changed) - m(tokens)).abs().amax(-1)[0]
    assert (difference > 1e-9).all()  # every position sees position 4, before it and after it
    with torch.no_grad():
        m.D_b.zero_()
        m.x_proj_b.weight.zero_()  # the output of the backward direction is now zero
    difference = (m(changed) - m(tokens)).abs().amax(-1)[0]
    assert (difference[:4] == 0).all()
    assert (difference[4:] > 1e-12).all()


def test_output_is_the_mean_of_the_directions():
    m, tokens = mixer(), torch.randn(1, 6, 12, dtype=torch.float64)
    parts = [
        one_direction(selective_scan, causal_conv1d, m.in_proj(tokens), m.direction(suffix), reverse)
        for suffix, reverse in (("", False), ("_b", True))
    ]
    torch.testing.assert_close(m(tokens), F.linear((parts[0] + parts[1]).mT / 2, m.out_proj.weight))


@pytest.mark.parametrize("backend", ["reference", "chunked", "auto"])
def test_forward_only_is_the_first_scan_alone_and_causal(backend):
    m, tokens = mixer(directions="forward", backend=backend).float(), torch.randn(1, 9, 12)
    assert m.causal
    assert not [name for name, _ in m.named_parameters() if "_b." in name or name.endswith("_b") or "_b_" in name]
    part = one_direction(selective_scan, causal_conv1d, m.in_proj(tokens), m.direction(""), reverse=False)
    torch.testing.assert_close(m(tokens), F.linear(part.mT, m.out_proj.weight), atol=1e-5, rtol=1e-4)
    changed = tokens.clone()
    changed[:, 4] += 1
    difference = (m(changed) - m(tokens)).abs().amax(-1)[0]
    assert (difference[:4] == 0).all()
    assert (difference[4:] > 0).all()


def test_causal_attention_sees_no_later_token():
    attention, tokens = Attention(12, 3, causal=True), torch.randn(1, 9, 12)
    changed = tokens.clone()
    changed[:, 4] += 1
    difference = (attention(changed) - attention(tokens)).abs().amax(-1)[0]
    assert (difference[:4] == 0).all()
    assert (difference[4:] > 1e-6).all()


@pytest.mark.parametrize("name", ["mae_3d_vim_small_patch8", "vim_3d_small_patch8"])
def test_step_sizes_start_in_range_in_both_directions_of_a_built_model(name):
    model = create_model(name, **SMALL)
    biases = [p for n, p in model.named_parameters() if "dt_proj" in n and n.endswith("bias")]
    assert len(biases) == 2 * (4 if name.startswith("mae") else 2)
    steps = F.softplus(torch.cat(biases))
    assert steps.min() >= 1e-3 * 0.999
    assert steps.max() <= 1e-1 * 1.001
    assert steps.log().std() > 0.5  # spread over the range, not one value


def test_state_matrices_start_as_1_to_n():
    m = mixer()
    for name in ("A_log", "A_b_log"):
        torch.testing.assert_close(m.get_parameter(name)[3].exp(), torch.arange(1.0, 5.0, dtype=torch.float64))


def test_attention_ignores_order_and_mamba_reads_it():
    tokens, order = torch.randn(1, 9, 12), torch.randperm(9)
    attention = Attention(12, 3)
    torch.testing.assert_close(attention(tokens[:, order]), attention(tokens)[:, order])
    m = mixer().float()
    assert (m(tokens[:, order]) - m(tokens)[:, order]).abs().max() > 1e-4
