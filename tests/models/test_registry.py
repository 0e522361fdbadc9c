import dataclasses
import json

import pytest
import timm
import torch

from models import create_model, list_models
from models.adapt import describe
from models.registry import _ALIASES
from tests.conftest import FIXTURES, SMALL

RECORDED = json.loads((FIXTURES / "recorded_counts.json").read_text())
SHALLOW = {"depth": 1, "decoder_depth": 1, "attention_layers": ()}


def small(name, depth):
    """Small fields for any family. A hybrid's last encoder block has attention."""
    return {**SMALL, "depth": depth, "attention_layers": (depth - 1,) if "mha" in name else ()}


def count(name, **fields):
    return sum(p.numel() for p in on_meta(name, **fields).parameters())


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


@pytest.mark.parametrize("name", list_models())
def test_every_name_builds_and_runs(name):
    patch, depth = next(p for p in (32, 16, 8, 4) if f"patch{p}" in name), 2 if "mha" in name else 1
    model = create_model(name, **{**small(name, depth), "img_size": 2 * patch, "decoder_depth": 1, "in_chans": 1})
    out = model(torch.randn(1, 1, *(2 * patch,) * 3))
    (out.loss if name.startswith(("mae", "ar")) else out.sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    shown = describe(model.state_dict())
    assert {field: getattr(model.config, field) for field in shown} == shown  # the checkpoint shows its model's fields
    assert shown["patch_size"] == patch


def test_every_name_has_a_recorded_count():
    assert sorted(RECORDED) == list_models()


@pytest.mark.parametrize("stem", sorted({name.removesuffix("16") for name in RECORDED if name.endswith("patch16")}))
def test_recorded_parameter_counts(stem):
    """Every name is built. Its blocks, which do not depend on the patch size, are built once per family and size."""
    blocks = count(f"{stem}16") - count(f"{stem}16", **SHALLOW)
    counts = {p: count(f"{stem}{p}", **SHALLOW) + blocks for p in (4, 8, 16, 32)}
    assert counts == {p: RECORDED[f"{stem}{p}"] for p in (4, 8, 16, 32)}


@pytest.mark.parametrize("name", json.loads((FIXTURES / "param_counts.json").read_text()))
def test_recorded_counts_are_those_of_the_paper(name):
    published = json.loads((FIXTURES / "param_counts.json").read_text())[name]["trainable"]
    assert RECORDED[_ALIASES.get(name, name)] == published - (384 if name.startswith("mae") else 0)


@pytest.mark.parametrize("alias", sorted(_ALIASES))
def test_an_alias_builds_what_its_name_does(alias):
    depths = {
        "depth": 10 if "mha" in alias else 1,
        "decoder_depth": 1,
    }  # the first 10 blocks include all attention blocks
    ours, theirs = on_meta(_ALIASES[alias], **depths), on_meta(alias, **depths)
    pool = "last" if "final_pool_none" in alias else "mean"
    assert type(theirs) is type(ours)
    assert theirs.config == dataclasses.replace(ours.config, pool=pool)


def test_names_of_the_papers_model_files():
    long = "final_pool_mean_abs_pos_embed_div2"
    assert _ALIASES[f"vim_3D_small_patch4_stride4_224_bimambav2_{long}"] == "vim_3d_small_patch4"
    assert _ALIASES[f"vim_3D_base_patch16_stride8_224_bimambav2_{long}"] == "vim_3d_base_patch16"
    assert _ALIASES[f"vim2_3D_small_patch32_stride32_{long}"] == "vim2_3d_small_patch32"
    assert _ALIASES[f"vim_mha_3D_small_patch16_stride16_{long}"] == "vim_mha_3d_small_patch16"
    assert _ALIASES["mae_3d_mha_small_patch4_rms_no_rope_residual"] == "mae_3d_vim_mha_small_patch4"
    assert _ALIASES["mae_3d_vim2_small_patch16_rms_no_rope_residual"] == "mae_3d_vim2_small_patch16"
    assert _ALIASES["mae_3d_vim_large_patch16_rms_bimambav2_rope_residual"] == "mae_3d_vim_large_patch16"


def test_families_differ_as_their_names_say():
    c = {f: on_meta(f"mae_3d_{f}_small_patch16", **SHALLOW).config for f in ("vim2", "bivim2", "vim_mha", "bivim_mha")}
    assert [(c[f].mixer, c[f].directions, c[f].rotary, c[f].embed_dim, c[f].decoder_embed_dim) for f in c] == [
        ("mamba2", "forward", "none", 512, 256), ("mamba2", "both", "none", 512, 256),
        ("mamba2", "forward", "none", 512, 256), ("mamba", "both", "axial", 384, 192),
    ]  # fmt: skip
    hybrid = on_meta("mae_3d_vim_mha_small_patch16")
    kinds = [type(block.mixer).__name__ for block in hybrid.blocks]
    assert [index for index, kind in enumerate(kinds) if kind == "ConvAttention"] == [3, 6, 9]
    assert set(kinds) == {"Mamba2", "ConvAttention"}
    assert {type(block.mixer).__name__ for block in hybrid.decoder_blocks} == {"Mamba2"}
    assert hybrid.blocks[3].mixer.in_proj.weight.shape == (3 * 16 * 128, 512)


def test_unknown_names_and_fields_name_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'mae_3d_vim_small_patch16'"):
        create_model("mae_3d_vim_smal_patch16")
    with pytest.raises(ValueError, match="did you mean 'embed_dim'"):
        create_model("vim_3d_small_patch16", embed_dims=3)
    with pytest.raises(ValueError, match="downloadable"):
        create_model("vim_3d_small_patch16", pretrained=True)


def test_list_models_filters():
    assert list_models("vit_3d_tiny") == [f"vit_3d_tiny_patch{p}" for p in (16, 32, 4, 8)]
    assert len(list_models()) == 240
