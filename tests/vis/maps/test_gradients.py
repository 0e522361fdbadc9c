"""Gradient maps add up to the log-odds that they explain, and agree with finite differences and Captum."""

import pytest
import torch
from captum.attr import IntegratedGradients

from models import create_model
from tests.helpers.vis_cases import SIZE, tiny_classifier, tiny_mae
from vis.maps.explained_class import attribution_mode, empty_volume, log_odds
from vis.maps.gradients import direction_difference, gradient_activation, integrated_gradients, scan_influence
from vis.maps.path_integral import SMALLEST_DIFFERENCE, TOLERANCE

TARGET = torch.tensor([1, 0])


@pytest.fixture
def model():
    model = tiny_classifier().eval()
    torch.nn.init.normal_(model.head.weight)
    return model


@pytest.fixture
def volume():
    return torch.randn(2, 4, *SIZE)


def score(model, volume):
    with torch.no_grad():
        return log_odds(model(volume), TARGET)


def test_after_the_last_block_the_map_adds_up_to_the_log_odds(model, volume):
    torch.nn.init.normal_(model.head.bias)
    bias = log_odds(model.head.bias.detach().expand(2, 2), TARGET)
    found = gradient_activation(model, volume, TARGET)
    torch.testing.assert_close(found.sum(1), score(model, volume) - bias, atol=1e-5, rtol=1e-4)


def test_after_an_earlier_block_the_map_is_the_derivative_with_respect_to_the_scale_of_each_token(model, volume):
    """Finite differences of the log-odds: the state of one token after block 0 is multiplied by 1 + h and 1 - h."""
    found = gradient_activation(model, volume, TARGET, block=0)
    h = 1e-2
    for token in (0, 7, 11):
        slopes = []
        for factor in (1 + h, 1 - h):

            def stretch(_, __, output, factor=factor, token=token):
                hidden, residual = output[0].clone(), output[1].clone()
                hidden[:, token] *= factor
                residual[:, token] *= factor
                return hidden, residual

            handle = model.blocks[0].register_forward_hook(stretch)
            slopes.append(score(model, volume))
            handle.remove()
        torch.testing.assert_close(found[:, token], (slopes[0] - slopes[1]) / (2 * h), atol=1e-3, rtol=2e-2)


def test_integrated_gradients_add_up_to_the_difference_from_the_empty_volume(model, volume):
    found = integrated_gradients(model, volume, TARGET, batch=5)
    assert found.attributions_BCZYX.shape == volume.shape
    rise = score(model, volume) - score(model, empty_volume(volume))
    missed = (found.attributions_BCZYX.flatten(1).sum(1) - rise).abs() / rise.abs().clamp(min=SMALLEST_DIFFERENCE)
    assert (missed <= TOLERANCE).all()
    assert [each.gap for each in found.completeness] == pytest.approx(missed.tolist(), abs=1e-4)


def test_contrast_dropout_does_not_break_completeness():
    """In the empty volume all contrasts count as missing, so its score is not the limit of the path."""
    torch.manual_seed(2)
    model, volume = tiny_classifier(contrast_dropout=0.3).eval(), torch.randn(1, 4, *SIZE)
    torch.nn.init.normal_(model.head.weight)
    torch.nn.init.normal_(model.patch_embed.missing_contrast, std=3)
    volume[:, :, :3] = 0  # background
    volume[:, 2] = 0  # a missing contrast
    found = integrated_gradients(model, volume, TARGET[:1])
    with torch.no_grad():
        scores = log_odds(model(torch.cat([volume, empty_volume(volume), 1e-6 * volume])), TARGET[:1].expand(3))
    assert (scores[1] - scores[2]).abs() > 0.1 * (scores[0] - scores[2]).abs()
    assert found.completeness[0].is_complete
    assert found.attributions_BCZYX.sum().item() == pytest.approx((scores[0] - scores[2]).item(), rel=0.03)
    assert (found.attributions_BCZYX[:, 2] == 0).all()


def test_integrated_gradients_agree_with_captums(model, volume):
    converged = IntegratedGradients(lambda x: log_odds(model(x), TARGET[:1].expand(len(x)))).attribute(
        volume[:1], empty_volume(volume[:1]), n_steps=400, method="gausslegendre", internal_batch_size=50
    )
    found = integrated_gradients(model, volume[:1], TARGET[:1], steps=128).attributions_BCZYX
    torch.testing.assert_close(found, converged.float(), atol=2e-4 * float(converged.abs().max()), rtol=0)


def test_integrated_gradients_do_not_depend_on_the_batch(model, volume):
    one, all_at_once = (
        integrated_gradients(model, volume, TARGET, steps=4, batch=b).attributions_BCZYX for b in (1, 4)
    )
    torch.testing.assert_close(one, all_at_once, atol=1e-5, rtol=1e-3)


def test_scan_influence_sums_to_the_derivative_with_respect_to_the_scale_of_the_mixer_output(model, volume):
    """The frozen scan is linear, so the sum over tokens is the derivative when the mixer output is scaled."""
    found = scan_influence(model, volume, TARGET, block=1)
    h, slopes = 1e-2, []
    for factor in (1 + h, 1 - h):
        handle = model.blocks[1].mixer.register_forward_hook(lambda _, __, output, factor=factor: output * factor)
        slopes.append(score(model, volume))
        handle.remove()
    torch.testing.assert_close(found.sum(1), (slopes[0] - slopes[1]) / (2 * h), atol=1e-3, rtol=2e-2)


def test_a_token_that_enters_no_scan_has_no_influence(model, volume):
    def silence(_, arguments):
        tokens = arguments[0].clone()
        tokens[:, 2:9] = 0  # wider than the convolution: token 5 receives zeros from both sides
        return (tokens,)

    for name in ("conv1d", "conv1d_b"):
        torch.nn.init.zeros_(model.blocks[1].mixer.get_submodule(name).bias)
    handle = model.blocks[1].mixer.register_forward_pre_hook(silence)
    found = scan_influence(model, volume, TARGET)
    handle.remove()
    assert (found[:, 5].abs() < 1e-7).all()
    assert (found[:, 10].abs() > 1e-6).all()


def test_influence_needs_a_scan(volume):
    vit = create_model("vit_3d_tiny_patch8", img_size=SIZE, embed_dim=24, depth=2, num_heads=2)
    with pytest.raises(ValueError, match="block 1 mixes tokens by Attention"):
        scan_influence(vit, volume, TARGET)
    with pytest.raises(ValueError, match="needs two scans"):
        direction_difference(vit, volume)


@pytest.mark.parametrize("make", [tiny_classifier, tiny_mae])
def test_a_direction_without_output_has_the_smaller_norm(make, volume):
    model = make().eval()
    mixer = model.blocks[1].mixer
    with torch.no_grad():
        mixer.D_b.zero_()
        mixer.x_proj_b.weight[-mixer.d_state :] = 0  # the state of the backward scan is not read
    assert (direction_difference(model, volume) > 0).all()
    assert direction_difference(model, volume).shape == (2, 12)


def reordered(volume, places, grid=(2, 3, 2), p=8):
    """Move the patch at raster position `places[i]` to position i."""
    z, y, x = grid
    patches = volume.reshape(2, 4, z, p, y, p, x, p).permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(1, 3)[:, places]
    return patches.unflatten(1, grid).permute(0, 4, 1, 5, 2, 6, 3, 7).reshape(volume.shape)


@pytest.mark.parametrize("order", ["hilbert", "snake", "xyz"])
def test_maps_of_another_scan_order_have_the_positions_of_their_patches(volume, order):
    """A model with another scan order equals a raster model on a volume whose patches are reordered."""
    winding, straight = (tiny_classifier(scan_order=o, rotary="none").eval() for o in (order, "raster"))
    straight.load_state_dict(winding.state_dict())
    places = winding.scan_places
    assert not torch.equal(places, torch.arange(12))
    with torch.no_grad():
        straight.pos_embed.copy_(winding.pos_embed[:, places])
    unwound = reordered(volume, places)
    torch.testing.assert_close(winding(volume), straight(unwound))
    for find in (gradient_activation, scan_influence):
        for block in (0, 1):
            found, expected = find(winding, volume, TARGET, block), find(straight, unwound, TARGET, block)
            assert not torch.allclose(found, expected, rtol=1e-3, atol=0)
            torch.testing.assert_close(found[:, places], expected, atol=1e-6, rtol=1e-3)
    found, expected = direction_difference(winding, volume), direction_difference(straight, unwound)
    torch.testing.assert_close(found[:, places], expected, atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize("find", [gradient_activation, scan_influence])
def test_unknown_block(model, volume, find):
    with pytest.raises(ValueError, match="--block 2 does not exist: the model has blocks 0 to 1"):
        find(model, volume, TARGET, block=2)


def test_steps_are_checked(model, volume):
    with pytest.raises(ValueError, match="--steps 0"):
        integrated_gradients(model, volume, TARGET, steps=0)


def test_checkpointed_blocks_make_no_difference(volume):
    plain, checkpointed = tiny_classifier().train(), tiny_classifier(grad_checkpointing=True).train()
    for find in (gradient_activation, scan_influence):
        torch.testing.assert_close(find(checkpointed, volume, TARGET, 0), find(plain, volume, TARGET, 0))
    with attribution_mode(plain):
        assert not plain.training
