"""Probabilities are computed in evaluation mode, also if the model is in training mode."""

import pytest
import torch

from tests.helpers.vis_cases import SIZE, tiny_classifier
from util.inference.probabilities import probabilities
from vis.maps.latent import latent_maps


@pytest.fixture
def volume():
    return torch.randn(2, 4, *SIZE, generator=torch.Generator().manual_seed(0))


def test_model_in_training_mode_gives_the_maps_of_evaluation(volume):
    model = tiny_classifier(drop_path_rate=0.9).train()
    seen = latent_maps(model, volume, ["max"])["max"]
    torch.testing.assert_close(seen, latent_maps(model.eval(), volume, ["max"])["max"])
    torch.testing.assert_close(probabilities(model.train(), volume), probabilities(model.eval(), volume))


def test_probabilities_are_the_softmax_of_the_logits(volume):
    model = tiny_classifier().eval()
    found = probabilities(model, volume)
    torch.testing.assert_close(found.sum(-1), torch.ones(2))
    with torch.no_grad():
        torch.testing.assert_close(found, model(volume).softmax(-1))
