"""Randomisation redraws weights from the output to the input and does not change the model."""

from dataclasses import asdict

import numpy as np
import pytest
import torch

from tests.helpers.vis_cases import tiny_classifier
from vis.map_checks.random_weights import randomised_models, rank_correlation


def test_each_stage_redraws_its_weights():
    model = tiny_classifier(depth=4)
    torch.nn.init.normal_(model.norm_f.weight)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.random.get_rng_state()
    drawn = {}
    for stage, randomised in randomised_models(model, "vim_3d_tiny_patch8", asdict(model.config)):
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


def test_the_seed_decides_the_weights():
    model = tiny_classifier()
    weights = [
        dict(randomised_models(model, "vim_3d_tiny_patch8", asdict(model.config), seed))["head"].head.weight
        for seed in (0, 0, 1)
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_rank_correlation_is_inside_the_brain():
    values = np.array([0.0, 1, 2, 3, -9])
    has_brain = np.array([True, True, True, True, False])
    assert rank_correlation(values, np.array([1.0, 10, 100, 1000, 5000]), has_brain) == pytest.approx(1)
    assert rank_correlation(values, -values, has_brain) == pytest.approx(-1)
    assert rank_correlation(values, np.ones(5), has_brain) == 0
