"""The cascade redraws weights from the top down and leaves the model alone."""

from dataclasses import asdict

import numpy as np
import pytest
import torch

from tests.helpers.vis_cases import tiny_classifier
from vis.map_checks.random_weights import cascade, similarity


def test_each_stage_redraws_what_it_says():
    model = tiny_classifier(depth=4)
    torch.nn.init.normal_(model.norm_f.weight)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.random.get_rng_state()
    drawn = {}
    for stage, randomised in cascade(model, "vim_3d_tiny_patch8", asdict(model.config)):
        drawn[stage] = {name for name, value in randomised.state_dict().items() if not torch.equal(value, before[name])}
    blocks = {
        stage: {name.split(".")[1] for name in names if name.startswith("blocks")} for stage, names in drawn.items()
    }
    assert list(drawn) == ["head", "last block", "upper half", "everything"]
    assert drawn["head"] == {"head.weight"}
    assert blocks == {"head": set(), "last block": {"3"}, "upper half": {"2", "3"}, "everything": {"0", "1", "2", "3"}}
    assert "norm_f.weight" in drawn["last block"]
    assert {"pos_embed", "patch_embed.proj.weight"} <= drawn["everything"]
    assert "pos_embed" not in drawn["upper half"]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_seed_decides():
    model = tiny_classifier()
    weights = [
        dict(cascade(model, "vim_3d_tiny_patch8", asdict(model.config), seed))["head"].head.weight for seed in (0, 0, 1)
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_similarity_is_of_ranks_inside_the_brain():
    values = np.array([0.0, 1, 2, 3, -9])
    occupied = np.array([True, True, True, True, False])
    assert similarity(values, np.array([1.0, 10, 100, 1000, 5000]), occupied) == pytest.approx(1)
    assert similarity(values, -values, occupied) == pytest.approx(-1)
    assert similarity(values, np.ones(5), occupied) == 0
