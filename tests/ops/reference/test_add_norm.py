import torch
import torch.nn.functional as F

from ops import add_norm_fn
from ops.reference.add_norm import rotate


def test_rotation_by_hand():
    """Pairs (1, 2) and (3, 4): rotated by 90 degrees, and by 180 degrees and doubled."""
    turns = torch.tensor([[[1j, -2.0]]])
    assert rotate(torch.tensor([[[1.0, 2.0, 3.0, 4.0]]]), turns).tolist() == [[[-2.0, 1.0, -6.0, -8.0]]]


def test_adds_then_rotates_then_norms_in_float64():
    hidden, residual = torch.randn(2, 3, 2, 6, dtype=torch.float64)
    rotation = torch.polar(torch.ones(1, 2, 3), torch.rand(1, 2, 3)).to(torch.complex128)
    weight, scale = torch.randn(6, dtype=torch.float64), torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
    normed, total = add_norm_fn(hidden, residual, rotation, weight, 1e-5, scale)
    torch.testing.assert_close(total, rotate(hidden * scale.view(3, 1, 1) + residual, rotation))
    torch.testing.assert_close(normed, F.rms_norm(total, (6,), weight, 1e-5))


def test_the_sum_is_float32_at_least():
    hidden = torch.randn(1, 2, 6).half()
    normed, total = add_norm_fn(hidden, None, None, torch.ones(6), 1e-5)
    assert total.dtype == torch.float32
    torch.testing.assert_close(total, hidden.float())
    torch.testing.assert_close(normed, F.rms_norm(total, (6,), eps=1e-5))
