"""Reconstructions have the intensities of the input, and the model stays unchanged."""

import numpy as np
import pytest
import torch

from tests.helpers.vis_cases import SIZE, tiny_ar, tiny_mae
from vis.drawing.reconstruction import GAP, reconstruct, reconstruction_picture


@pytest.fixture
def volume():
    generator = torch.Generator().manual_seed(0)
    volume = torch.zeros(2, 4, *SIZE)
    volume[:, :, 2:-2, 3:-3, 2:-2] = 3 + torch.randn(2, 4, 12, 18, 12, generator=generator)
    return volume


def silence_decoder(mae):
    """A decoder that predicts 0 for every value."""
    torch.nn.init.zeros_(mae.decoder_pred.weight)
    torch.nn.init.zeros_(mae.decoder_pred.bias)
    return mae


def test_the_moments_of_normalised_patches_are_restored(volume):
    result = reconstruct(silence_decoder(tiny_mae(norm_pix_loss=True)), volume)
    blocks = volume.unfold(2, 8, 8).unfold(3, 8, 8).unfold(4, 8, 8)  # (B, C, z, y, x, 8, 8, 8)
    means = blocks.mean(dim=(1, 5, 6, 7))  # zero, the mean of a normalised patch, is the mean of the patch
    shown = result.prediction.unfold(2, 8, 8).unfold(3, 8, 8).unfold(4, 8, 8)
    torch.testing.assert_close(shown, means[:, None, :, :, :, None, None, None].expand_as(shown), atol=1e-5, rtol=0)


def test_patches_that_were_not_normalised_stay_unchanged(volume):
    assert (reconstruct(silence_decoder(tiny_mae()), volume).prediction == 0).all()


def test_pasted_is_input_where_visible_and_prediction_where_removed(volume):
    result = reconstruct(tiny_mae(), volume)
    removed = result.removed_ZYX.unsqueeze(1).expand_as(volume)
    assert torch.equal(result.pasted[~removed], volume[~removed])
    assert torch.equal(result.pasted[removed], result.prediction[removed])
    assert torch.equal(result.masked[~removed], volume[~removed])
    assert (result.masked[removed] == 0).all()
    assert not torch.equal(result.prediction, volume)


def test_mask_covers_whole_patches_in_the_asked_ratio(volume):
    for ratio, kept in ((0.5, 6), (0.75, 3)):
        removed = reconstruct(tiny_mae(), volume, mask_ratio=ratio).removed_ZYX.float()
        patches = torch.nn.functional.avg_pool3d(removed.unsqueeze(1), 8)
        assert set(patches.unique().tolist()) == {0.0, 1.0}
        assert (patches == 0).sum(dim=(1, 2, 3, 4)).tolist() == [kept, kept]


def test_loss_is_that_of_the_removed_patches(volume):
    result = reconstruct(tiny_mae(), volume)
    removed = result.removed_ZYX.unsqueeze(1).expand_as(volume)
    assert result.loss == pytest.approx(((result.prediction - volume)[removed] ** 2).mean().item(), rel=1e-4)


def test_an_autoregressive_model_predicts_all_but_the_first_patch_of_its_scan(volume):
    result = reconstruct(tiny_ar(scan_order="xyz"), volume, mask_ratio=None)
    assert (~result.removed_ZYX).sum(dim=(1, 2, 3)).tolist() == [8**3, 8**3]
    assert torch.equal(result.pasted[:, :, :8, :8, :8], volume[:, :, :8, :8, :8])
    removed = result.removed_ZYX.unsqueeze(1).expand_as(volume)
    assert result.loss == pytest.approx(((result.prediction - volume)[removed] ** 2).mean().item(), rel=1e-4)
    assert reconstruction_picture(tiny_ar(), volume, mask_ratio=None).std() > 1


def test_a_model_shown_in_its_own_order_is_not_the_same_in_another(volume):
    """Weights do not say the order; the run's config does."""
    first, other = (reconstruct(tiny_mae(scan_order=order), volume) for order in ("raster", "hilbert"))
    assert torch.equal(first.removed_ZYX, other.removed_ZYX)
    assert not torch.allclose(first.prediction, other.prediction, atol=1e-4)


def test_seed_alone_decides_the_mask(volume):
    mae = tiny_mae()
    first = reconstruct(mae, volume, seed=3)
    torch.rand(100)
    assert torch.equal(reconstruct(mae, volume, seed=3).removed_ZYX, first.removed_ZYX)
    assert not torch.equal(reconstruct(mae, volume, seed=4).removed_ZYX, first.removed_ZYX)
    assert not torch.equal(first.removed_ZYX[0], first.removed_ZYX[1])


def test_training_mode_does_not_show_and_is_kept(volume):
    mae = tiny_mae(drop_path_rate=0.9).train()
    state = torch.get_rng_state()
    result = reconstruct(mae, volume)
    assert torch.equal(torch.get_rng_state(), state)  # a picture must not change the training that goes on after it
    assert mae.training
    torch.testing.assert_close(result.prediction, reconstruct(mae.eval(), volume).prediction)
    assert not result.prediction.requires_grad


def test_picture_has_a_row_per_contrast_and_three_columns(volume):
    mae = tiny_mae().train()
    picture = reconstruction_picture(mae, volume, mask_ratio=0.5, seed=1)
    height, width = SIZE[1] + 2 * GAP, SIZE[2] + 2 * GAP
    assert picture.dtype == np.uint8
    assert picture.shape == (4 * height, 3 * width, 3)
    assert mae.training
    seen, masked, pasted = (picture[:height, column * width : (column + 1) * width, 0] for column in range(3))
    assert seen.max() > 200
    assert not np.array_equal(seen, masked)
    visible = masked == seen
    assert np.array_equal(pasted[visible & (seen > 0)], seen[visible & (seen > 0)])
    assert not np.array_equal(seen, pasted)
