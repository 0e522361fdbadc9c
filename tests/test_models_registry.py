import json

import pytest
import timm
import torch

from models import create_model, list_models
from models.state import describe
from tests.conftest import FIXTURES, SMALL


def on_meta(name, **fields):
    with torch.device("meta"):
        return create_model(name, **fields)


def test_timm_finds_the_same_models():
    assert type(timm.create_model("mae_3d_vim_small_patch16")).__name__ == "MaskedAutoencoder3D"
    assert "vim_3d_small_patch16" in timm.list_models("vim_3d*")


@pytest.mark.parametrize("name", json.loads((FIXTURES / "param_counts.json").read_text()))
def test_parameter_counts_of_the_paper(name):
    published = json.loads((FIXTURES / "param_counts.json").read_text())[name]["trainable"]
    unused_class_token = 384 if name.startswith("mae") else 0
    assert sum(p.numel() for p in on_meta(name).parameters()) == published - unused_class_token


@pytest.mark.parametrize("file", sorted(FIXTURES.glob("keys_*.json")), ids=lambda file: file.stem)
def test_published_keys_and_shapes_fit(file):
    published = {k: torch.empty(v, device="meta") for k, v in json.loads(file.read_text()).items()}
    model = on_meta(file.stem.removeprefix("keys_"), fidelity="paper")
    adapted = model.adapt_state_dict(published)
    assert {k: v.shape for k, v in adapted.state.items()} == {k: v.shape for k, v in model.state_dict().items()}
    assert all(key.startswith(("rope.", "decoder_rope.", "cls_token")) for key in adapted.ignored)


@pytest.mark.parametrize("name", list_models(aliases=True))
def test_every_name_builds_and_runs(name):
    patch = next(p for p in (32, 16, 8, 4) if f"patch{p}" in name)
    model = create_model(name, **{**SMALL, "img_size": 2 * patch, "depth": 1, "decoder_depth": 1, "in_chans": 1})
    out = model(torch.randn(1, 1, *(2 * patch,) * 3))
    (out.loss if name.startswith("mae") else out.sum()).backward()
    assert describe(model.state_dict())["patch_size"] == patch


def test_unknown_names_and_fields_name_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'mae_3d_vim_small_patch16'"):
        create_model("mae_3d_vim_smal_patch16")
    with pytest.raises(ValueError, match="did you mean 'embed_dim'"):
        create_model("vim_3d_small_patch16", embed_dims=3)
    with pytest.raises(ValueError, match="downloadable"):
        create_model("vim_3d_small_patch16", pretrained=True)


def test_list_models_filters():
    assert list_models("vit_3d_tiny") == [f"vit_3d_tiny_patch{p}" for p in (16, 32, 4, 8)]
    assert len(list_models()) == 64
