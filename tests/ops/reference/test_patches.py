"""ops/reference/patches.py against patches cut out by hand and mse_loss on whole tensors, for any block size."""

import pytest
import torch
import torch.nn.functional as F

from ops.reference import patches
from ops.reference.patches import gather_patches, patch_error, patch_error_plain, patch_moments


def case(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Predictions (2, 5, P), a volume of 12 patches of 2 voxels and 3 contrasts, and 5 patches of each sample."""
    generator = torch.Generator().manual_seed(0)
    volume = torch.randn(2, 3, 4, 6, 4, generator=generator, dtype=torch.promote_types(dtype, torch.float32))
    ids = torch.stack([torch.randperm(12, generator=generator)[:5] for _ in range(2)])
    return torch.randn(2, 5, 24, generator=generator).to(dtype).requires_grad_(), volume, ids


def whole(pred: torch.Tensor, volume: torch.Tensor, ids: torch.Tensor, normalise: bool) -> torch.Tensor:
    """The loss by one call of mse_loss; the patches are cut out one by one."""
    rows = []
    for b in range(volume.shape[0]):
        for i in ids[b].tolist():
            z, y, x = 2 * (i // 6), 2 * (i // 2 % 3), 2 * (i % 2)
            rows.append(volume[b, :, z : z + 2, y : y + 2, x : x + 2].permute(1, 2, 3, 0).flatten())
    targets = torch.stack(rows).view(2, 5, 24)
    if normalise:
        mean, std = patch_moments(targets)
        targets = (targets - mean) / std
    return F.mse_loss(pred.to(targets.dtype), targets)


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6), (torch.bfloat16, 1e-2)], ids=str
)
@pytest.mark.parametrize("block_values", [1, 30, 100, 2**20])
def test_error_and_gradient_are_those_of_mse_loss(monkeypatch, block_values, dtype, tolerance, normalise):
    monkeypatch.setattr(patches, "BLOCK_VALUES", block_values)
    pred, volume, ids = case(dtype)
    value = patch_error(pred, volume, ids, 2, normalise)
    expected = whole(pred, volume, ids, normalise)
    torch.testing.assert_close(value, expected, atol=0, rtol=min(tolerance, 1e-6))
    (ours,), (theirs,) = (torch.autograd.grad(loss * 3, pred) for loss in (value, expected))
    torch.testing.assert_close(ours, theirs, atol=tolerance / 100, rtol=tolerance)
    assert ours.dtype == dtype


def test_small_gradients_survive_half_precision():
    """A mean over millions of values scaled up by a GradScaler: 2 / n alone would vanish in float16."""
    pred = torch.ones(1, 3, 2**18, dtype=torch.float16, requires_grad=True)
    volume = torch.zeros(1, 1, 64, 64, 192)
    (patch_error(pred, volume, torch.arange(3)[None], 64, False) * 2.0**16).backward()
    assert pred.grad is not None
    torch.testing.assert_close(pred.grad.float(), torch.full(pred.shape, 2.0**17 / pred.numel()), atol=0, rtol=1e-3)


def test_rows_carry_the_gradient_of_the_volume():
    volume = torch.randn(1, 2, 4, 4, 4, dtype=torch.float64, requires_grad=True)
    ids = torch.tensor([[5, 0]])
    assert torch.autograd.gradcheck(lambda v: gather_patches(v, ids, 2), volume)
    assert torch.equal(gather_patches(volume, None, 2, True)[:, [5, 0]], gather_patches(volume, ids, 2, True))


def test_every_patch_is_where_its_number_says():
    """Three patches along z, two along y and x, of one voxel each: the row of a patch is its voxel."""
    volume = torch.arange(12.0).view(1, 1, 3, 2, 2)
    ids = torch.tensor([[11, 0, 5, 6, 8]])
    assert gather_patches(volume, ids, 1).flatten().tolist() == ids[0].tolist()
    assert gather_patches(volume, None, 1).flatten().tolist() == list(range(12))


def test_moments_by_hand():
    mean, std = patch_moments(torch.tensor([[[1.0, 3.0], [2.0, 2.0]]]))
    assert mean.tolist() == [[[2.0], [2.0]]]
    torch.testing.assert_close(std, torch.tensor([[[(2 + 1e-6) ** 0.5], [1e-3]]]))


@pytest.mark.parametrize("normalise", [False, True])
def test_the_form_for_export_is_the_same_error(normalise: bool):
    pred, volume, ids = case(torch.float32)
    expected = whole(pred, volume, ids, normalise)
    torch.testing.assert_close(patch_error_plain(pred, volume, ids, 2, normalise), expected)
