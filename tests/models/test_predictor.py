import pytest
import torch

from models import create_model
from tests.conftest import SMALL

NAMES = ("mae_3d_vim_small_patch8", "ar_3d_vim_small_patch8")


def predictor(name=NAMES[0], **fields):
    return create_model(name, **{**SMALL, **fields})


@pytest.mark.parametrize("name", NAMES)
def test_norm_pix_targets_and_their_inverse(name, volume):
    model = predictor(name, norm_pix_loss=True)
    patches = model.patchify(volume * 3 + 1)
    targets = model.targets(patches)
    torch.testing.assert_close(targets.mean(-1), torch.zeros(2, 24), atol=1e-5, rtol=0)
    torch.testing.assert_close(targets.var(-1), torch.ones(2, 24), atol=1e-4, rtol=0)
    torch.testing.assert_close(model.denormalise(targets, patches), patches, atol=1e-4, rtol=1e-4)
    assert torch.equal(model.unpatchify(model.patchify(volume)), volume)


@pytest.mark.parametrize("norm_pix_loss", [False, True])
def test_patches_are_unchanged_without_norm_pix(norm_pix_loss, volume):
    model = predictor(norm_pix_loss=norm_pix_loss)
    patches = model.patchify(volume + 1)
    assert torch.equal(model.targets(patches), patches) != norm_pix_loss
    assert torch.equal(model.denormalise(patches, patches), patches) != norm_pix_loss


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_of_the_same_objective_fits_whole(name):
    source, target = predictor(name), predictor(name)
    adapted = target.adapt_state_dict(source.state_dict())
    assert adapted.state.keys() == target.state_dict().keys()
    assert adapted.ignored == adapted.resized == []


@pytest.mark.parametrize(("source", "target", "flag"), [(*NAMES, "mae"), (*NAMES[::-1], "ar")])
def test_a_checkpoint_of_the_other_objective_names_the_flag(source, target, flag):
    state = predictor(source, directions="forward").state_dict()
    with pytest.raises(ValueError, match=f"pass --objective {flag}"):
        predictor(target, directions="forward").adapt_state_dict(state)


def test_a_forward_decoder_starts_a_backward_one_too():
    source, target = predictor(directions="forward"), predictor()
    adapted = target.adapt_state_dict(source.state_dict())
    target.load_state_dict(adapted.state)
    mixer, own = source.decoder_blocks[0].mixer, target.decoder_blocks[0].mixer
    torch.testing.assert_close(own.conv1d_b.weight, mixer.conv1d.weight)
