"""Looking into a model leaves it as it was, and sees it without drop path."""

import pytest
import torch
from vis_cases import SIZE, tiny_classifier, tiny_mae

from vis.inference import block_number, latent_maps, probabilities


@pytest.fixture
def volume():
    return torch.randn(2, 4, *SIZE, generator=torch.Generator().manual_seed(0))


def test_model_in_training_mode_gives_the_maps_of_evaluation(volume):
    model = tiny_classifier(drop_path_rate=0.9).train()
    seen = latent_maps(model, volume, ["max"])["max"]
    torch.testing.assert_close(seen, latent_maps(model.eval(), volume, ["max"])["max"])
    torch.testing.assert_close(probabilities(model.train(), volume), probabilities(model.eval(), volume))


@pytest.mark.parametrize("make", [tiny_mae, tiny_classifier])
def test_max_is_over_the_features_that_the_head_reads(make, volume):
    model = make().eval()
    with torch.no_grad():
        features = model.forward_features(volume)
    torch.testing.assert_close(latent_maps(model, volume, ["max"])["max"].flatten(1), features.amax(-1))


def test_norm_is_taken_before_the_final_norm_which_would_flatten_it(volume):
    model = tiny_classifier().eval()
    lengths = latent_maps(model, volume, ["norm"])["norm"]
    with torch.no_grad():
        flattened = model.forward_features(volume).norm(dim=-1)
    assert lengths.std() / lengths.mean() > 100 * flattened.std() / flattened.mean()


def test_probabilities_are_the_softmax_of_the_logits(volume):
    model = tiny_classifier().eval()
    found = probabilities(model, volume)
    torch.testing.assert_close(found.sum(-1), torch.ones(2))
    with torch.no_grad():
        torch.testing.assert_close(found, model(volume).softmax(-1))


def test_block_is_counted_from_either_end():
    mae = tiny_mae()
    assert [block_number(mae, block) for block in (-2, -1, 0, 1)] == [0, 1, 0, 1]
    for block in (2, -3):
        with pytest.raises(ValueError, match=f"--block {block} does not exist: the model has blocks 0 to 1"):
            block_number(mae, block)
