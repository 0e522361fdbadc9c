"""models/loss.py: the same value and gradient as the loss on whole tensors, whatever the blocks."""

import pytest
import torch
import torch.nn.functional as F

from models import loss as module
from models.loss import patch_squared_error


def whole(pred, targets, ids):
    picked = targets.gather(1, ids.unsqueeze(-1).expand(-1, -1, targets.shape[2]))
    return F.mse_loss(pred.to(torch.promote_types(pred.dtype, torch.float32)), picked.to(targets.dtype))


@pytest.fixture(params=[1, 7, 64, 2**20])
def block_values(request, monkeypatch):
    monkeypatch.setattr(module, "BLOCK_VALUES", request.param)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6), (torch.bfloat16, 1e-2)]
)
def test_value_and_gradient_are_those_of_mse_loss(block_values, dtype, tolerance):
    generator = torch.Generator().manual_seed(0)
    targets = torch.randn(2, 12, 6, generator=generator, dtype=torch.promote_types(dtype, torch.float32))
    ids = torch.stack([torch.randperm(12, generator=generator)[:5] for _ in range(2)])
    pred = torch.randn(2, 5, 6, generator=generator).to(dtype)
    ours, theirs = pred.clone().requires_grad_(), pred.clone().requires_grad_()

    def target_of(samples, some):
        return targets[samples].gather(1, some.unsqueeze(-1).expand(-1, -1, 6))

    value = patch_squared_error(ours, ids, target_of)
    (value * 3).backward()
    expected = whole(theirs, targets, ids)
    (expected * 3).backward()
    torch.testing.assert_close(value, expected, atol=0, rtol=max(tolerance / 10, 1e-12))
    torch.testing.assert_close(ours.grad, theirs.grad, atol=tolerance / 100, rtol=tolerance)
    assert ours.grad.dtype == dtype


def test_small_gradients_survive_half_precision():
    """A mean over millions of values scaled up by a GradScaler: 2 / n alone would vanish in float16."""
    pred = torch.ones(1, 3, 2**20, dtype=torch.float16, requires_grad=True)
    value = patch_squared_error(pred, torch.arange(3)[None], lambda samples, ids: torch.zeros(1, ids.shape[1], 2**20))
    (value * 2.0**16).backward()
    assert pred.grad is not None
    torch.testing.assert_close(pred.grad.float(), torch.full(pred.shape, 2.0**17 / pred.numel()), atol=0, rtol=1e-3)


def test_targets_are_asked_for_in_blocks(monkeypatch):
    monkeypatch.setattr(module, "BLOCK_VALUES", 8)
    asked = []

    def target_of(samples, ids):
        asked.append((samples.start, ids.tolist()))
        return torch.zeros(1, ids.shape[1], 4)

    patch_squared_error(torch.zeros(2, 3, 4), torch.tensor([[5, 6, 7], [1, 2, 3]]), target_of)
    assert asked == [(0, [[5, 6]]), (0, [[7]]), (1, [[1, 2]]), (1, [[3]])]
