import functools

import pytest
import torch

from ops import ssd_scan_fn
from tests.helpers.ops_cases import assert_close, forward_backward, reference_scan
from tests.helpers.ssd_cases import SSDCase

reference_ssd = functools.partial(ssd_scan_fn, backend="reference")


@pytest.mark.parametrize("case", [SSDCase(length=5, reverse=r) for r in (False, True)], ids=str)
def test_gradcheck(case: SSDCase):
    assert torch.autograd.gradcheck(functools.partial(reference_ssd, **case.options), tuple(case.tensors().values()))


@pytest.mark.parametrize("case", [SSDCase(length=20, groups=2), SSDCase(length=20, reverse=True, D=False)], ids=str)
def test_it_is_the_selective_scan_with_one_decay_per_head(case: SSDCase):
    """Mamba's scan over the channels of all heads, each with the step size, A and D of its head."""

    def by_selective_scan(x, dt, A, B, C, D, dt_bias, dt_softplus, reverse):
        def per_channel(t):
            return None if t is None else t.repeat_interleave(case.headdim, dim=-1)

        y = reference_scan(
            x.flatten(2).transpose(1, 2),
            per_channel(dt).transpose(1, 2),
            per_channel(A)[:, None].expand(-1, case.states),
            B.permute(0, 2, 3, 1),
            C.permute(0, 2, 3, 1),
            per_channel(D),
            delta_bias=per_channel(dt_bias),
            delta_softplus=dt_softplus,
            reverse=reverse,
        )
        return y.transpose(1, 2).unflatten(-1, (case.heads, case.headdim))

    expected = forward_backward(by_selective_scan, case.tensors(), **case.options)
    assert_close(forward_backward(reference_ssd, case.tensors(), **case.options), expected, rtol=1e-12)


def test_steps_by_hand():
    one = torch.ones(1, 3, 1, 1, dtype=torch.float64)
    dt = torch.tensor([[[1.0], [2.0], [0.5]]], dtype=torch.float64)
    A, D = torch.tensor([-1.0], dtype=torch.float64), torch.tensor([10.0], dtype=torch.float64)
    y = reference_ssd(one, dt, A, one, one, D).flatten()
    h1, h2 = 1.0, torch.exp(torch.tensor(-2.0)).item() + 2.0
    h3 = h2 * torch.exp(torch.tensor(-0.5)).item() + 0.5
    torch.testing.assert_close(y, torch.tensor([h1, h2, h3], dtype=torch.float64) + 10, rtol=1e-6, atol=0)


def test_output_has_the_precision_of_the_input():
    tensors = SSDCase().tensors(torch.bfloat16)
    assert reference_ssd(**tensors).dtype == torch.bfloat16
