import functools
import math

import pytest
import torch

from tests.helpers.ops_cases import ScanCase, reference_scan


def test_one_channel_by_hand():
    one = torch.ones(1, 1, 3, dtype=torch.float64)
    out, last = reference_scan(
        u=one * torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64),
        delta=one * math.log(2.0),
        A=torch.tensor([[-1.0]], dtype=torch.float64),
        B=one,
        C=one * 10,
        D=torch.tensor([5.0], dtype=torch.float64),
        return_last_state=True,
    )
    step = math.log(2.0)  # halves the state
    h = [step, step / 2 + 2 * step, (step / 2 + 2 * step) / 2 + 3 * step]
    torch.testing.assert_close(out.flatten().tolist(), [10 * h[0] + 5, 10 * h[1] + 10, 10 * h[2] + 15])
    assert last.item() == pytest.approx(h[2])


def test_groups_are_consecutive_channels():
    tensors = ScanCase(dim=6, groups=3).tensors()
    whole = reference_scan(**tensors)
    for group in range(3):
        mine = slice(2 * group, 2 * group + 2)
        part = {name: tensors[name][:, mine] for name in ("u", "delta", "z")}
        part |= {name: tensors[name][mine] for name in ("A", "D", "delta_bias")}
        part |= {name: tensors[name][:, group] for name in ("B", "C")}
        torch.testing.assert_close(reference_scan(**part), whole[:, mine])


def test_constant_matrices_equal_repeated_ones():
    tensors = ScanCase(dim=4, constant_B=True, constant_C=True).tensors()
    repeated = dict(tensors)
    for name in ("B", "C"):
        repeated[name] = tensors[name][None, :, :, None].expand(2, 4, 3, 9)  # one group per channel
    torch.testing.assert_close(reference_scan(**tensors), reference_scan(**repeated))


@pytest.mark.parametrize("option", ["D", "z", "delta_bias"])
def test_every_optional_argument_has_an_effect(option: str):
    tensors = ScanCase().tensors()
    without = {**tensors, option: None}
    assert not torch.allclose(reference_scan(**tensors), reference_scan(**without))


def test_gradcheck():
    tensors = ScanCase(batch=1, dim=2, length=4, states=2).tensors()
    scan = functools.partial(reference_scan, delta_softplus=True)
    assert torch.autograd.gradcheck(scan, tuple(tensors.values()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_output_keeps_the_input_precision(dtype: torch.dtype):
    out, last = reference_scan(**ScanCase().tensors(dtype), return_last_state=True)
    assert out.dtype == dtype
    assert last.dtype == torch.float32


def test_last_state_continues_the_scan():
    tensors = ScanCase(length=8, z=False, D=False).tensors()
    first = {name: x[..., :5] if x is not None and x.dim() == 3 else x for name, x in tensors.items()}
    _, state = reference_scan(**first, delta_softplus=True, return_last_state=True)
    dt = torch.nn.functional.softplus(tensors["delta"][..., 5] + tensors["delta_bias"])
    state = torch.exp(dt[..., None] * tensors["A"]) * state
    state = state + dt[..., None] * tensors["B"][:, None, :, 5] * tensors["u"][..., 5, None]
    expected = (state * tensors["C"][:, None, :, 5]).sum(-1)
    torch.testing.assert_close(reference_scan(**tensors, delta_softplus=True)[..., 5], expected)
