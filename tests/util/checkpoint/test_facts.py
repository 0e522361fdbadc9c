"""What a checkpoint file records: name, image size, fidelity, and where each is recorded."""

import argparse
from dataclasses import asdict

import pytest
import torch

from models import create_model
from models.adapt import describe
from tests.conftest import SMALL
from util.checkpoint.facts import fidelity_of, image_size, recorded_name, source_grid

PATCH = 8


def small_classifier():
    return create_model("vim_3d_small_patch8", **SMALL)


def test_our_config_has_priority():
    model = create_model("mae_3d_vim_tiny_patch8", **SMALL, fidelity="paper")
    fields = asdict(model.config)
    content = {"model": model.state_dict(), "config": {"model": {"name": "mae_3d_vim_tiny_patch8", "fields": fields}}}
    content["args"] = argparse.Namespace(model="vit_3d_small_patch8", input_size=32)
    assert recorded_name(content) == ("mae_3d_vim_tiny_patch8", "our config in the file")
    assert fidelity_of(content, {"fidelity": "corrected"}) == ("paper", "our config in the file")
    assert image_size(content).value == (16, 24, 32)
    assert source_grid(content, PATCH) == (2, 3, 4)


def test_published_options_come_second():
    content = {"model": {}, "args": argparse.Namespace(model="mae_3d_vim_small_patch16", input_size=160)}
    assert recorded_name(content) == ("mae_3d_vim_small_patch16", "args.model")
    assert fidelity_of(content, {"fidelity": "corrected"}) == (
        "paper",
        "published: its options are an argparse.Namespace",
    )
    assert (image_size(content).value, source_grid(content, 16)) == ((160, 160, 160), (10, 10, 10))


@pytest.mark.parametrize("fidelity", ["corrected", "paper"])
def test_tensors_come_last(fidelity):
    state = create_model("mae_3d_vim_small_patch8", **SMALL, fidelity=fidelity).state_dict()
    assert fidelity_of({"model": state}, describe(state)) == (fidelity, "names and shapes of the tensors")


def test_bare_weights_of_a_classifier_record_nothing():
    content = {"model": small_classifier().state_dict()}
    assert fidelity_of(content, describe(content["model"])) == (None, "not recorded")
    assert source_grid(content, PATCH) is None
    assert recorded_name(content).value is None


@pytest.mark.parametrize(
    "extra",
    [{"config": "text"}, {"config": {"model": [1]}}, {"config": {"model": {"fields": {"img_size": "160"}}}},
     {"config": {"model": {"name": 3, "fields": {"img_size": [0, 1, 2], "fidelity": ["paper"]}}}},
     {"args": {"input_size": 160}}, {"args": argparse.Namespace(input_size=[1, 2], model=None)}],
    ids=str,
)  # fmt: skip
def test_malformed_records_count_as_missing(extra):
    content = {"model": {"pos_embed": torch.zeros(1, 24, 48)}, **extra}
    assert image_size(content).value is None
    assert source_grid(content, PATCH) is None
    assert recorded_name(content).value is None
    assert fidelity_of(content, {}).how != "our config in the file"
