"""Latent maps have the right value at the right position, in raster order, with a fixed sign."""

import numpy as np
import pytest
import torch

from tests.helpers.vis_cases import SIZE, tiny_classifier, tiny_mae
from vis.maps.latent import MAPS, block_number, first_component, latent_map, latent_maps

GRID = (2, 3, 4)  # three different sides, so that swapped axes are found


@pytest.fixture
def tokens():
    return torch.randn(2, 24, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", MAPS)
def test_every_map_has_the_shape_of_the_grid(name, tokens):
    assert MAPS[name](tokens, GRID).shape == (2, *GRID)


def test_tokens_return_to_their_positions_with_z_slowest():
    tokens = torch.zeros(1, 24, 5)
    tokens[0, (1 * 3 + 2) * 4 + 3, 2] = 7
    found = MAPS["max"](tokens, GRID)
    assert found[0, 1, 2, 3] == 7
    assert found.sum() == 7


def test_max_and_norm_agree_with_numpy(tokens):
    values = tokens.numpy()
    np.testing.assert_allclose(MAPS["max"](tokens, GRID).flatten(1), values.max(-1))
    np.testing.assert_allclose(MAPS["norm"](tokens, GRID).flatten(1), np.sqrt((values**2).sum(-1)), rtol=1e-6)


def test_first_component_agrees_with_svd_of_each_sample(tokens):
    for sample, scores in zip(tokens.double().numpy(), first_component(tokens), strict=True):
        centred = sample - sample.mean(0)
        _, _, components = np.linalg.svd(centred, full_matrices=False)
        loading = components[0] * np.sign(components[0][np.abs(components[0]).argmax()])
        np.testing.assert_allclose(scores, centred @ loading, atol=1e-5)


def test_first_component_keeps_its_sign(tokens):
    torch.testing.assert_close(first_component(-tokens), -first_component(tokens))
    shuffled = torch.randperm(24, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(first_component(tokens[:, shuffled]), first_component(tokens)[:, shuffled])


def test_first_component_of_equal_tokens_is_zero():
    assert (first_component(torch.ones(1, 24, 6)) == 0).all()


def test_mean_and_single_features(tokens):
    np.testing.assert_allclose(latent_map("mean")(tokens, GRID).flatten(1), tokens.numpy().mean(-1), atol=1e-6)
    assert torch.equal(latent_map("feature-4")(tokens, GRID).flatten(1), tokens[..., 4])
    assert latent_map("feature-4").title == "feature 4"
    with pytest.raises(ValueError, match="feature-6 does not exist: tokens have features 0 to 5"):
        latent_map("feature-6")(tokens, GRID)
    with pytest.raises(ValueError, match='no latent map "median"'):
        latent_map("median")


@pytest.fixture
def volume():
    return torch.randn(2, 4, *SIZE, generator=torch.Generator().manual_seed(0))


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


def test_block_is_counted_from_either_end():
    mae = tiny_mae()
    assert [block_number(mae, block) for block in (-2, -1, 0, 1)] == [0, 1, 0, 1]
    for block in (2, -3):
        with pytest.raises(ValueError, match=f"--block {block} does not exist: the model has blocks 0 to 1"):
            block_number(mae, block)
