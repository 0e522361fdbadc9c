import pytest
import torch

from models import create_model
from models.tokens.masking import make_mask
from models.tokens.patches import take_tokens
from tests.conftest import SMALL

NAMES = ("mae_3d_vim_small_patch8", "mae_3d_vit_small_patch8")


@pytest.mark.parametrize("name", NAMES)
def test_shapes_and_no_gradient_missing(name, volume):
    mae = create_model(name, **SMALL)
    out = mae(volume)
    assert (out.pred.shape, out.latent.shape, out.ids_keep.shape) == ((2, 24, 2048), (2, 6, 48), (2, 6))
    assert out.removed.sum(1).tolist() == [18, 18]
    assert (out.ids_keep.diff(dim=1) > 0).all()  # ascending, because a scan depends on the order
    mae(volume, return_pred=False).loss.backward()
    assert [n for n, p in mae.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_predicting_only_removed_patches_gives_the_same_loss(volume):
    mae, noise = create_model(NAMES[0], **SMALL), torch.rand(2, 24)
    full, lean = mae(volume, noise=noise), mae(volume, noise=noise, return_pred=False)
    assert lean.pred is None
    torch.testing.assert_close(full.loss, lean.loss)
    per_patch = (full.pred - mae.patchify(volume)).square().mean(-1)
    torch.testing.assert_close(full.loss, (per_patch * full.removed).sum() / full.removed.sum())


def test_the_prediction_cannot_see_removed_patches(volume):
    mae, noise = create_model(NAMES[0], **SMALL).eval(), torch.rand(2, 24)
    out = mae(volume, noise=noise)
    hidden = mae.patchify(volume)
    hidden[out.removed.bool()] = 123.0
    torch.testing.assert_close(mae(mae.unpatchify(hidden), noise=noise).pred, out.pred)


def test_the_encoder_sees_kept_tokens_at_their_true_positions(volume):
    """The latent of kept tokens depends only on their own positions and contents."""
    mae = create_model(NAMES[0], **SMALL).eval()
    ids = torch.tensor([[1, 5, 7, 11, 20, 23]] * 2)
    noise = torch.ones(2, 24).scatter(1, ids, 0.0)
    out = mae(volume, noise=noise)
    assert torch.equal(out.ids_keep, ids)
    moved = mae.patchify(volume).roll(1, dims=1)  # the same contents at other positions
    shifted = mae(mae.unpatchify(moved), noise=noise.roll(1, dims=1)).latent
    assert (shifted - out.latent).abs().max() > 1e-3


@pytest.mark.parametrize("masking", ["block", "grid"])
def test_masking_decides_which_tokens_are_removed(masking, volume):
    noise = torch.rand(2, 24)
    plain, other = (create_model(NAMES[0], **SMALL, masking=m)(volume, 0.5, noise) for m in ("random", masking))
    expected = make_mask(masking, noise, 0.5, (2, 3, 4))
    assert torch.equal(other.ids_keep, expected.ids_keep)
    assert torch.equal(other.removed, expected.removed())
    assert not torch.equal(other.removed, plain.removed)


def test_noise_or_a_generator_decides_the_mask(volume):
    mae = create_model(NAMES[0], **SMALL).eval()
    drawn = torch.rand(2, 24, generator=torch.Generator().manual_seed(3))
    first, again = (mae(volume, generator=torch.Generator().manual_seed(3)).removed for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(first, mae(volume, noise=drawn).removed)


def test_encode_gives_all_tokens_in_raster_order(volume):
    mae = create_model(NAMES[0], **SMALL).eval()
    tokens, states = mae.forward_intermediates(volume)
    assert mae.encode(volume).shape == (2, 24, 48)
    torch.testing.assert_close(mae.encode(volume), tokens)
    torch.testing.assert_close(mae.norm_f(states[-1]), tokens)
    mask_all = torch.arange(24).expand(2, -1)
    assert torch.equal(take_tokens(tokens, mask_all), tokens)


def test_wrong_volume_and_noise_are_named(volume):
    mae = create_model(NAMES[0], **SMALL)
    with pytest.raises(ValueError, match="volume has shape"):
        mae(volume[:, :3])
    with pytest.raises(ValueError, match="noise has shape"):
        mae(volume, noise=torch.rand(2, 5))


def test_learning_beats_predicting_each_patchs_mean():
    """After a few steps on smooth volumes, predictions of removed patches are better than the patches' means."""
    torch.manual_seed(0)
    z, y, x = torch.meshgrid(*[torch.linspace(-1, 1, 16)] * 3, indexing="ij")
    phases = torch.rand(8, 4, 1, 1, 1) * 0.3
    volumes = torch.sin(3 * (z + phases)) + torch.cos(2 * (y - x) + phases)
    mae = create_model(NAMES[0], **{**SMALL, "img_size": 16, "patch_size": 4, "embed_dim": 48})
    patches = mae.patchify(volumes)
    mean_loss = (patches - patches.mean(-1, keepdim=True)).square().mean()
    optimizer = torch.optim.AdamW(mae.parameters(), lr=4e-3)
    for _ in range(60):
        loss = mae(volumes, return_pred=False).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.7 * mean_loss
