import json

import pytest
import timm
import torch
from safetensors.torch import save_file

from models import create_model
from models.pretrained import fields_of
from tests.conftest import SMALL

NAME = "vim_3d_small_patch8"


@pytest.fixture
def trained():
    return create_model(NAME, **SMALL, num_classes=3)


@pytest.fixture
def file(tmp_path, trained):
    save_file(trained.state_dict(), tmp_path / "model.safetensors")
    return str(tmp_path / "model.safetensors")


def folder_of(model, path, **changed):
    """A folder for timm's local-dir: scheme."""
    fields = {name: value for name, value in SMALL.items() if name != "img_size"}
    card = {**model.pretrained_cfg, "input_size": (4, *model.config.img_size), "num_classes": 3}
    config = {
        "architecture": NAME,
        "num_classes": 3,
        "model_args": {**fields, "img_size": model.config.img_size, "num_classes": 3},
        "pretrained_cfg": card,
    }
    (path / "config.json").write_text(json.dumps({**config, **changed}))
    return f"local-dir:{path}"


def test_timm_knows_what_the_registry_describes():
    card = timm.models.get_pretrained_cfg(NAME)
    assert (card.architecture, card.input_size, card.pool_size) == (NAME, (4, 160, 160, 160), (20, 20, 20))
    assert (card.num_classes, card.classifier, card.first_conv) == (2, "head", "patch_embed.proj")
    assert timm.models.get_pretrained_cfg_value("mae_3d_" + NAME.replace("_3d", ""), "classifier") is None
    assert NAME in timm.list_models("vim_3d*", name_matches_cfg=True)
    assert NAME not in timm.list_pretrained("vim_3d*")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_file_by_the_overlay(suffix, file, trained, volume, tmp_path):
    if suffix == ".pth":
        file = str(tmp_path / "run.pth")
        torch.save({"model": trained.state_dict(), "epoch": 3}, file)
    loaded = create_model(
        NAME, pretrained=True, pretrained_cfg_overlay={"file": file, "num_classes": 3}, **SMALL
    )  # the overlay gives the number of classes, as in timm
    assert loaded.pretrained_cfg["file"] == file
    assert torch.equal(loaded.eval()(volume), trained.eval()(volume))


def test_a_folder(file, trained, volume, tmp_path):
    folder = folder_of(trained, tmp_path)
    loaded = timm.create_model(folder, pretrained=True)
    assert torch.equal(loaded.eval()(volume), trained.eval()(volume))
    assert loaded.pretrained_cfg["source"] == "local-dir"
    named = timm.create_model(folder)  # also without pretrained=True: a folder is named for its weights
    assert torch.equal(named.eval()(volume), trained.eval()(volume))


def test_other_classes_start_with_a_fresh_head(file, trained, tmp_path):
    loaded = timm.create_model(folder_of(trained, tmp_path), pretrained=True, num_classes=5)
    assert loaded.head.weight.shape == (5, 48)
    assert torch.equal(loaded.pos_embed, trained.pos_embed)


def test_another_size_resamples_the_positions(file, trained, tmp_path):
    """The folder records its grid: (4, 3, 2) is another grid than (2, 3, 4) with the same number of tokens."""
    loaded = timm.create_model(folder_of(trained, tmp_path), pretrained=True, img_size=(32, 24, 16))
    assert loaded.grid == (4, 3, 2)
    assert loaded.pos_embed.shape == trained.pos_embed.shape
    assert not torch.equal(loaded.pos_embed, trained.pos_embed)
    told = {"file": file, "num_classes": 3, "input_size": (4, 16, 24, 32)}
    again = create_model(NAME, pretrained=True, pretrained_cfg_overlay=told, **{**SMALL, "img_size": (32, 24, 16)})
    assert torch.equal(again.pos_embed, loaded.pos_embed)


def test_weights_given_as_a_dictionary(trained, volume):
    overlay = {"state_dict": trained.state_dict(), "num_classes": 3}
    loaded = create_model(NAME, pretrained=True, pretrained_cfg_overlay=overlay, **SMALL)
    assert torch.equal(loaded.eval()(volume), trained.eval()(volume))


def test_a_classifier_loads_an_autoencoders_file(tmp_path):
    mae = create_model("mae_3d_vim_small_patch8", **SMALL)
    save_file(mae.state_dict(), tmp_path / "mae.safetensors")
    overlay = {"file": str(tmp_path / "mae.safetensors")}
    loaded = create_model(NAME, pretrained=True, pretrained_cfg_overlay=overlay, **SMALL)
    assert torch.equal(loaded.blocks[1].mixer.A_b_log, mae.blocks[1].mixer.A_b_log)


def test_errors_name_the_weights_that_do_not_load(file, trained, tmp_path):
    with pytest.raises(ValueError, match="no downloadable weights"):
        create_model(NAME, pretrained=True, **SMALL)
    for name, expected in (("none.pth", "do not exist"), ("cut.safetensors", "cannot be loaded")):
        (tmp_path / "cut.safetensors").write_bytes(b"123456789")
        with pytest.raises(ValueError, match=f"{name}.* {expected}"):
            create_model(NAME, pretrained=True, pretrained_cfg_overlay={"file": str(tmp_path / name)}, **SMALL)
    with pytest.raises(ValueError, match=r"model\.safetensors.*depth is 2 in the checkpoint"):
        create_model(NAME, pretrained=True, pretrained_cfg_overlay={"file": file}, **{**SMALL, "depth": 1})
    lacking = {key: value for key, value in trained.state_dict().items() if key != "pos_embed"}
    with pytest.raises(ValueError, match="state lacks pos_embed"):
        create_model(NAME, pretrained=True, pretrained_cfg_overlay={"state_dict": lacking}, **SMALL)
    with pytest.raises(ValueError, match=r"input_size=\(3, 224, 224\) is not \(C, Z, Y, X\)"):
        fields_of({"input_size": [3, 224, 224]})
