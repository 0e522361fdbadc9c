import pytest
from timm.optim import param_groups_layer_decay

from models import create_model
from tests.conftest import SMALL


@pytest.mark.parametrize("family", ["vim", "bivim2"])
def test_scan_parameters_are_not_decayed(family):
    model = create_model(f"mae_3d_{family}_small_patch8", **SMALL)
    names = {id(p): n for n, p in model.named_parameters()}
    groups = param_groups_layer_decay(model, 0.05, tuple(model.no_weight_decay()), layer_decay=1.0)
    decayed = {names[id(p)] for group in groups if group["weight_decay"] for p in group["params"]}
    for part in ("A_log", "A_b_log", ".D", ".D_b", "dt_bias", "dt_bias_b", "mask_token", "bias", "norm"):
        assert not [name for name in decayed if name.endswith(part) or (part == "norm" and "norm" in name)], part
    assert any(name.endswith("in_proj.weight") for name in decayed)


def test_scan_parameters_are_named_as_undecayed():
    """For optimisers that go by the names alone, not by the number of dimensions."""
    model = create_model("vim_3d_small_patch8", **{**SMALL, "depth": 1}, mixer="mamba2")
    mixer = "blocks.0.mixer."
    assert model.no_weight_decay() - {"pos_embed", "mask_token"} == {
        mixer + name for name in ("A_log", "A_b_log", "D", "D_b", "dt_bias", "dt_bias_b")
    }


def test_layer_groups_deepen_from_embedding_to_head():
    model = create_model("vim_3d_small_patch8", **SMALL)
    names = {id(p): n for n, p in model.named_parameters()}
    groups = param_groups_layer_decay(model, 0.05, tuple(model.no_weight_decay()), layer_decay=0.5)
    scale = {names[id(p)]: group["lr_scale"] for group in groups for p in group["params"]}
    assert scale["head.weight"] == 1.0
    assert scale["pos_embed"] == scale["patch_embed.proj.weight"] < scale["blocks.0.mixer.A_log"]
    assert scale["blocks.0.mixer.A_log"] == scale["blocks.0.norm.weight"] < scale["blocks.1.mixer.D_b"] < 1.0
