"""What a checkpoint says without a model: fields, grid, registry name, fidelity, and how each is known."""

import argparse
import json
import re
from dataclasses import asdict

import pytest
import torch

from models import create_model, list_models
from tests.conftest import FIXTURES, SMALL
from util.checkpoint.facts import fidelity_of, image_size, kind_of, registry_name, shape_fields, source_grid

SHOWN = re.compile(r"(mae_3d_(vim|vit)|ar_3d_vit|(vim|vit)_3d)_(tiny|small|base|large)_patch\d+")


def on_meta(name, **fields):
    with torch.device("meta"):
        return create_model(name, **fields)


def published(file):
    """A published checkpoint's content, as shapes only."""
    shapes = json.loads((FIXTURES / file).read_text())
    return {"model": {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}}


def ours(model, name):
    return {"model": model.state_dict(), "config": {"model": {"name": name, "fields": asdict(model.config)}}}


@pytest.mark.parametrize("name", list_models())
def test_shapes_show_the_registered_name_or_none(name):
    found = registry_name({"model": on_meta(name).state_dict()}).value
    assert found == name if SHOWN.fullmatch(name) else found is None


@pytest.mark.parametrize("name", ["mae_3d_vim_small_patch16", "vit_3d_tiny_patch8", "vim_3d_base_patch32"])
def test_shapes_show_the_fields_of_the_config(name):
    config = on_meta(name).config
    found = shape_fields(on_meta(name).state_dict())
    assert {"embed_dim", "depth", "mixer", "patch_size", "in_chans"} <= found.keys()
    assert found == {field: getattr(config, field) for field in found}


def test_our_config_is_believed_before_shapes():
    content = ours(create_model("mae_3d_vim_tiny_patch8", **SMALL, fidelity="paper"), "mae_3d_vim_tiny_patch8")
    assert registry_name(content) == ("mae_3d_vim_tiny_patch8", "our config in the file")
    assert registry_name({"model": content["model"]}).value is None  # its fields were changed
    assert fidelity_of(content) == ("paper", "our config in the file")
    assert image_size(content).value == (16, 24, 32)
    assert source_grid(content) == (2, 3, 4)


def test_published_checkpoints_are_known_by_options_and_by_buffers():
    mae = published("keys_mae_3d_vim_small_patch16.json")
    assert kind_of(mae["model"]) == "masked autoencoder"
    assert registry_name(mae) == ("mae_3d_vim_small_patch16", "shapes of the tensors")
    assert fidelity_of(mae) == ("paper", "published: it stores rotary buffers")
    assert source_grid(mae) is None
    mae["args"] = argparse.Namespace(model="mae_3d_vim_small_patch16", input_size=160)
    assert registry_name(mae) == ("mae_3d_vim_small_patch16", "args.model")
    assert fidelity_of(mae) == ("paper", "published: its options are an argparse.Namespace")
    assert (image_size(mae).value, source_grid(mae)) == ((160, 160, 160), (10, 10, 10))
    (file,) = FIXTURES.glob("keys_vim_3D*.json")
    classifier = published(file.name)
    assert (kind_of(classifier["model"]), fidelity_of(classifier).value) == ("classifier", "paper")
    assert registry_name(classifier).value == "vim_3d_small_patch16"


@pytest.mark.parametrize("fidelity", ["corrected", "paper"])
def test_bare_weights_of_an_autoencoder_show_their_fidelity(fidelity):
    mae = create_model("mae_3d_vim_small_patch8", **SMALL, fidelity=fidelity)
    found = fidelity_of({"model": mae.state_dict()})
    assert found.value == fidelity
    assert "row for a class slot" in found.how


def test_bare_weights_of_a_classifier_do_not():
    content = {"model": create_model("vim_3d_small_patch8", **SMALL).state_dict()}
    assert fidelity_of(content).value is None
    assert source_grid(content) is None


@pytest.mark.parametrize(
    "extra",
    [{"config": "text"}, {"config": {"model": [1]}}, {"config": {"model": {"fields": {"img_size": "160"}}}},
     {"config": {"model": {"name": 3, "fields": {"img_size": [0, 1, 2], "fidelity": ["paper"]}}}},
     {"args": {"input_size": 160}}, {"args": argparse.Namespace(input_size=[1, 2], model=None)}],
    ids=str,
)  # fmt: skip
def test_odd_records_are_not_believed_and_do_no_harm(extra):
    content = {"model": create_model("vim_3d_small_patch8", **SMALL).state_dict(), **extra}
    assert image_size(content).value is None
    assert source_grid(content) is None
    assert registry_name(content).value is None
    assert fidelity_of(content).how != "our config in the file"


def test_tensors_of_other_shapes_under_our_names_do_no_harm():
    state = {key: torch.zeros(()) for key in create_model("mae_3d_vim_small_patch8", **SMALL).state_dict()}
    content = {"model": state | {"head.weight": torch.zeros(()), "blocks.99999999999.norm.weight": torch.zeros(())}}
    assert shape_fields(content["model"]) == {"depth": 10**11, "decoder_depth": 2}
    assert fidelity_of(content).value is registry_name(content).value is source_grid(content) is None


def test_foreign_weights_have_no_facts():
    content = {"model": {"conv1.weight": torch.zeros(4, 3, 7, 7), "patch_embed.proj.weight": torch.zeros(4, 3, 2, 2)}}
    assert shape_fields(content["model"]) == {}
    assert registry_name(content).value is None
