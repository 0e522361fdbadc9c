import pytest
import torch

from models import create_model
from models.adapt import describe
from models.tokens.positions import resample_position_embedding
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
     (lambda: classifier("bivim2_3d_small_patch8"), "mixer is mamba in the checkpoint and mamba2"),
     (lambda: classifier("bivim_mha_3d_small_patch8", attention_layers=(1,)), r"attention_layers is \(\) .* \(1,\)"),
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


def ar(**fields):
    return create_model("ar_3d_vim_small_patch8", **{**SMALL, **fields})


def test_autoregressive_to_a_classifier_of_one_direction_is_exact():
    source, target = ar(), classifier(directions="forward")
    adapted = target.adapt_state_dict(source.state_dict())
    assert set(target.state_dict()) - set(adapted.state) == {"head.weight", "head.bias"}
    assert adapted.resized == []
    target.load_state_dict(adapted.state, strict=False)
    volume = torch.randn(1, 4, 16, 24, 32)
    torch.testing.assert_close(target.eval().forward_features(volume), source.eval().forward_features(volume))


def test_a_backward_direction_that_the_checkpoint_lacks_starts_as_a_copy_and_is_reported():
    source, target = ar(), classifier()
    adapted = target.adapt_state_dict(source.state_dict())
    assert set(target.state_dict()) - set(adapted.state) == {"head.weight", "head.bias"}
    assert adapted.resized == [
        "14 parameters of the backward direction: the checkpoint scans forward only, they start as copies of its "
        "forward ones"
    ]
    target.load_state_dict(adapted.state, strict=False)
    for block, own in zip(source.blocks, target.blocks, strict=True):
        forward = block.mixer.direction("")
        for name, value in own.mixer.direction("_b")._asdict().items():
            assert torch.equal(value, getattr(forward, name)), name
            assert torch.equal(value, getattr(own.mixer.direction(""), name)), name


def test_a_backward_direction_that_the_model_lacks_is_an_error_with_the_fix():
    with pytest.raises(ValueError, match="directions is both in the checkpoint and forward in the model"):
        classifier(directions="forward").adapt_state_dict(mae().state_dict())


def test_a_backward_direction_of_another_shape_is_not_copied():
    state = ar().state_dict()
    state["blocks.1.mixer.x_proj.weight"] = torch.zeros(3, 96)
    with pytest.raises(ValueError, match="directions is forward in the checkpoint and both in the model"):
        classifier().adapt_state_dict(state)


def test_a_missing_parameter_of_a_backward_direction_is_not_replaced():
    state = mae().state_dict()
    del state["blocks.1.mixer.A_b_log"]
    assert "blocks.1.mixer.A_b_log" not in classifier().adapt_state_dict(state).state


def test_describe_gives_the_directions():
    assert [describe(model.state_dict())["directions"] for model in (mae(), ar())] == ["both", "forward"]


@pytest.mark.parametrize(
    ("family", "fields"),
    [("vim", {}), ("vit", {}), ("vim2", {}), ("bivim2", {"d_state": 6, "head_dim": 4}),
     ("vim_mha", {"attention_layers": (0,)}), ("bivim_mha", {"attention_layers": (1,)})],
)  # fmt: skip
def test_describe_gives_the_mixers(family, fields):
    model = classifier(f"{family}_3d_small_patch8", **fields)
    shown = describe(model.state_dict())
    assert {"mixer", "embed_dim", "depth", "patch_size", "in_chans"} <= shown.keys()
    assert {"directions", "attention_layers", "d_state"} <= shown.keys() or family == "vit"
    assert shown == {field: getattr(model.config, field) for field in shown}


def test_one_direction_is_not_mistaken_for_two():
    with pytest.raises(ValueError, match="directions is forward in the checkpoint and both in the model"):
        classifier("bivim2_3d_small_patch8").adapt_state_dict(
            create_model("mae_3d_vim2_small_patch8", **SMALL).state_dict()
        )


@pytest.mark.parametrize("family", ["vim2", "bivim2", "vim_mha"])
def test_new_families_go_from_autoencoder_to_classifier(family):
    fields = {**SMALL, "attention_layers": (1,) if family == "vim_mha" else ()}
    source, target = (
        create_model(name, **fields) for name in (f"mae_3d_{family}_small_patch8", f"{family}_3d_small_patch8")
    )
    adapted = target.adapt_state_dict(source.state_dict())
    assert all(key.startswith("decoder_") or key == "mask_token" for key in adapted.ignored)
    assert set(target.state_dict()) - set(adapted.state) == {"head.weight", "head.bias"}


def test_tokens_of_missing_contrasts_start_fresh_or_are_left_out():
    key = "patch_embed.missing_contrast"
    plain, dropping = mae(), mae(contrast_dropout=0.3)
    for target in (classifier(contrast_dropout=0.3), dropping):
        adapted = target.adapt_state_dict(plain.state_dict())
        assert key in adapted.may_miss
        assert key not in adapted.state
    for target in (classifier(), plain):
        adapted = target.adapt_state_dict(dropping.state_dict())
        assert key in adapted.ignored
        assert "--contrast_dropout" in adapted.resized[0]
    kept = classifier(contrast_dropout=0.1).adapt_state_dict(dropping.state_dict())
    assert torch.equal(kept.state[key], dropping.patch_embed.missing_contrast)


@pytest.mark.parametrize("name", ["mae_3d_vim_small_patch8", "ar_3d_vim_small_patch8", "vim_3d_small_patch8"])
def test_every_kind_of_model_trains_with_contrasts_left_out(name, volume):
    model = create_model(name, **SMALL, contrast_dropout=0.6)
    out = model(volume)
    (out if name.startswith("vim") else out.loss).sum().backward()
    gradient = model.patch_embed.missing_contrast.grad
    assert gradient is not None
    assert gradient.abs().sum() > 0
    assert "patch_embed.missing_contrast" in model.no_weight_decay()
