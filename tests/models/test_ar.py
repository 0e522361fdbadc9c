import pytest
import torch

from models import MaskedAutoencoder3D, create_model
from models.tokens.scan_orders import scan_places
from tests.conftest import SMALL

NAMES = ("ar_3d_vim_small_patch8", "ar_3d_vit_small_patch8")


def model(name=NAMES[0], **fields):
    return create_model(name, **{**SMALL, **fields}).eval()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("order", ["raster", "yxz", "hilbert"])
def test_no_prediction_sees_its_own_patch_or_later_ones(name, order, volume):
    """Changing the patch at step j of the scan changes predictions after j and none up to j."""
    ar = model(name, scan_order=order)
    places = scan_places(order, ar.grid)
    with torch.no_grad():
        before = ar(volume).pred
        for j in (0, 1, 10, 22, 23):
            patches = ar.patchify(volume)
            patches[:, places[j]] += torch.randn(2, patches.shape[-1])
            changed = (ar(ar.unpatchify(patches)).pred - before).abs().amax(-1)[:, places]
            assert (changed[:, : j + 1] == 0).all(), j
            assert (changed[:, j + 1 :] > 1e-7).all(), j


@pytest.mark.parametrize("norm_pix_loss", [False, True])
def test_loss_is_that_of_all_patches_but_the_first(norm_pix_loss, volume):
    ar = model(scan_order="xyz", norm_pix_loss=norm_pix_loss)
    out, lean = ar(volume), ar(volume, return_pred=False)
    per_patch = (out.pred - ar.targets(ar.patchify(volume))).square().mean(-1)
    torch.testing.assert_close(out.loss, per_patch[:, scan_places("xyz", ar.grid)[1:]].mean())
    torch.testing.assert_close(lean.loss, out.loss)
    assert lean.pred is None
    assert out.removed.sum(1).tolist() == [23, 23]
    assert (out.pred[:, 0] == 0).all()
    assert (out.removed[:, 0] == 0).all()


def test_output_is_in_raster_order_for_any_scan_order(volume):
    ar = model(scan_order="snake")
    out = ar(volume)
    assert torch.equal(out.ids_keep, torch.arange(24).expand(2, -1))
    torch.testing.assert_close(out.latent, ar.forward_features(volume))
    assert out.latent.shape == (2, 24, 48)


def test_prediction_depends_on_the_target_position(volume):
    """The decoder's embedding of a position changes the prediction of that position and of none before it."""
    ar = model()
    before = ar(volume).pred
    ar.decoder_pos_embed[:, 10] += 1
    changed = (ar(volume).pred - before).abs().amax(-1)
    assert (changed[:, :10] == 0).all()
    assert (changed[:, 10] > 1e-4).all()


@pytest.mark.parametrize("name", NAMES)
def test_no_gradient_missing(name, volume):
    ar = model(name)
    ar(volume, return_pred=False).loss.backward()
    assert [n for n, p in ar.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_bfloat16_and_checkpointed_blocks(volume):
    """bfloat16 gives the same loss to its precision. Checkpointing does not change gradients."""
    gradients = []
    for enabled in (False, True):
        torch.manual_seed(0)
        ar = model(grad_checkpointing=enabled, drop_path_rate=0.2, scan_order="xyz").train()
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16):
            ar(volume, return_pred=False).loss.backward()
        gradients.append([parameter.grad for parameter in ar.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)
    exact = ar.eval()(volume).loss
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(ar(volume).loss, exact, rtol=0.02, atol=0)


def test_it_learns_to_predict_smooth_volumes():
    torch.manual_seed(0)
    z, y, x = torch.meshgrid(*[torch.linspace(-1, 1, 16)] * 3, indexing="ij")
    phases = torch.rand(8, 4, 1, 1, 1) * 0.3
    volumes = torch.sin(3 * (z + phases)) + torch.cos(2 * (y - x) + phases)
    ar = model(img_size=16, patch_size=4).train()
    patches = ar.patchify(volumes)
    mean_loss = (patches - patches.mean(-1, keepdim=True)).square().mean()
    optimizer = torch.optim.AdamW(ar.parameters(), lr=4e-3)
    for _ in range(40):
        loss = ar(volumes, return_pred=False).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.7 * mean_loss


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"directions": "both"}, 'directions="both" with mixer="mamba".*"forward"'),
     ({"scan_order": "shuffle"}, "no next token"), ({"fidelity": "paper"}, 'choose fidelity="corrected"')],
)  # fmt: skip
def test_combinations_that_cannot_predict_the_next_token_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        model(**fields)


def test_objectives_share_everything_but_the_mask_token():
    mae = create_model("mae_3d_vim_small_patch8", **SMALL, directions="forward")
    assert isinstance(mae, MaskedAutoencoder3D)
    assert set(mae.state_dict()) - set(model().state_dict()) == {"mask_token"}
