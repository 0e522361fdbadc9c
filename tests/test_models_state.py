import pytest
import torch

from models import create_model
from models.positions import resample_position_embedding
from tests.conftest import SMALL


def mae(**fields):
    return create_model("mae_3d_vim_small_patch8", **{**SMALL, **fields})


def classifier(name="vim_3d_small_patch8", **fields):
    return create_model(name, **{**SMALL, **fields})


def test_autoencoder_to_classifier_leaves_out_exactly_the_decoder():
    source, target = mae(), classifier()
    adapted = target.adapt_state_dict(source.state_dict())
    assert all(key.startswith("decoder_") or key == "mask_token" for key in adapted.ignored)
    assert set(target.state_dict()) - set(adapted.state) == {"head.weight", "head.bias"} == adapted.may_miss


def test_position_embedding_of_another_grid_is_resampled_in_3d():
    source, target = mae(img_size=(16, 16, 32)), classifier(img_size=(32, 16, 48))
    adapted = target.adapt_state_dict(source.state_dict(), source.grid)
    expected = resample_position_embedding(source.pos_embed, (2, 2, 4), (4, 2, 6))
    torch.testing.assert_close(adapted.state["pos_embed"], expected)
    assert adapted.resized == ["pos_embed: resampled from grid (2, 2, 4) to (4, 2, 6)"]


def test_class_slot_row_follows_the_fidelity():
    paper, corrected = mae(fidelity="paper"), mae()
    to_corrected = corrected.adapt_state_dict(paper.state_dict(), paper.grid)
    assert to_corrected.resized == ["decoder_pos_embed: class-slot row dropped"]
    corrected.load_state_dict(to_corrected.state)
    paper.load_state_dict(paper.adapt_state_dict(corrected.state_dict()).state)
    assert (paper.decoder_pos_embed[:, 0] == 0).all()


@pytest.mark.parametrize(
    ("target", "message"),
    [(lambda: classifier(patch_size=4, img_size=(16, 24, 32)), "patch_size is 8 in the checkpoint and 4"),
     (lambda: classifier(embed_dim=24), "embed_dim is 48 in the checkpoint and 24"),
     (lambda: classifier("vit_3d_small_patch8"), "mixer is mamba in the checkpoint and attention"),
     (lambda: classifier(depth=3), "depth is 2"),
     (lambda: mae(decoder_embed_dim=48), "decoder_embed_dim is 24")],
)  # fmt: skip
def test_a_checkpoint_of_another_model_is_refused_by_name(target, message):
    with pytest.raises(ValueError, match=message):
        target().adapt_state_dict(mae().state_dict())


def test_foreign_checkpoints_and_unrecorded_grids_are_refused():
    with pytest.raises(ValueError, match="no model of this project"):
        classifier().adapt_state_dict({"layer1.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match="classifier"):
        mae().adapt_state_dict(classifier().state_dict())
    with pytest.raises(ValueError, match="does not record"):
        classifier(img_size=(16, 16, 16)).adapt_state_dict(mae().state_dict())
