"""Maps by name, on the token grid, of autoencoders and classifiers."""

import argparse

import pytest
import torch

from tests.helpers.vis_cases import SIZE, tiny_classifier, tiny_mae
from vis.maps.gradients import gradient_activation, integrated_gradients, scan_influence
from vis.maps.occlusion import occlusion
from vis.maps.registry import CLASS_SPECIFIC, NAMES, MapOptions, compute_maps, map_kind, map_name
from vis.maps.token_grid import on_grid, patch_sums

GRID = (2, 3, 2)


@pytest.fixture
def model():
    model = tiny_classifier()
    torch.nn.init.normal_(model.head.weight)
    return model


@pytest.fixture
def volume():
    return torch.randn(2, 4, *SIZE)


def test_every_name_gives_a_map_and_leaves_the_model_as_it_was(model, volume):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = compute_maps(model.train(), volume, [*NAMES, "feature-3"], MapOptions(steps=2))
    assert list(found) == [*NAMES, "feature-3"]
    for name, (values, completeness) in found.items():
        assert (completeness is not None) == (name == "integrated")
        assert values.shape == (2, *GRID)
        assert values.isfinite().all()
        assert values.std() > 0
        assert not values.requires_grad
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_options_reach_the_maps_that_use_them(model, volume):
    one, options = torch.ones(2, dtype=torch.long), MapOptions(block=0, target=1, steps=3, window=2, batch=2)
    found = compute_maps(model, volume, ["gradient", "influence", "integrated", "occlusion"], options)
    parts = integrated_gradients(model, volume, one, steps=3).attributions_BCZYX.sum(1)
    expected = {
        "gradient": gradient_activation(model, volume, one, 0),
        "influence": scan_influence(model, volume, one, 0),
        "integrated": patch_sums(parts, 8),
        "occlusion": occlusion(model, volume, one, window=2),
    }
    for name, values_BL in expected.items():
        torch.testing.assert_close(found[name].values_Bzyx, on_grid(values_BL, GRID), atol=1e-5, rtol=1e-3)


def test_class_specific_maps_of_two_classes_are_opposite(model, volume):
    first, second = (compute_maps(model, volume, CLASS_SPECIFIC, MapOptions(target=t, steps=2)) for t in (0, 1))
    for name in CLASS_SPECIFIC:
        torch.testing.assert_close(first[name].values_Bzyx, -second[name].values_Bzyx, atol=1e-4, rtol=1e-3)


def test_block_changes_latent_maps(model, volume):
    for name in ("max", "norm", "directions"):
        last, first = (compute_maps(model, volume, [name], MapOptions(block=b))[name].values_Bzyx for b in (-1, 0))
        assert not torch.allclose(last, first)


def test_an_autoencoder_has_latent_maps_but_no_class_specific_ones(volume):
    assert set(compute_maps(tiny_mae(), volume, ["mean", "directions"])) == {"mean", "directions"}
    with pytest.raises(ValueError, match="--map occlusion explains a class"):
        compute_maps(tiny_mae(), volume, ["occlusion"])


def test_unknown_name_hints_at_the_nearest():
    with pytest.raises(ValueError, match=r'no map "gradeint"; did you mean "gradient"\?'):
        map_kind("gradeint")
    with pytest.raises(argparse.ArgumentTypeError, match="feature-K"):
        map_name("feature-x")
    assert map_name("feature-12") == "feature-12"


def test_feature_beyond_the_width(model, volume):
    with pytest.raises(ValueError, match="feature-24 does not exist: tokens have features 0 to 23"):
        compute_maps(model, volume, ["feature-24"])
