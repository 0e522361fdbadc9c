"""Occlusion agrees with replacing patches one by one, and skips windows of background."""

import pytest
import torch

from tests.helpers.vis_cases import SIZE, tiny_classifier
from vis.maps.explained_class import log_odds
from vis.maps.occlusion import occlusion, window_of_patch
from vis.maps.token_grid import patch_sums

TARGET = torch.tensor([1])


@pytest.fixture
def model():
    model = tiny_classifier().eval()
    torch.nn.init.normal_(model.head.weight)
    return model


@pytest.fixture
def volume():
    """Tissue in the patches of the lower half only, background 0.5."""
    volume = torch.full((1, 4, *SIZE), 0.5)
    volume[:, :, 9:] = torch.randn(1, 4, 7, *SIZE[1:])
    return volume


def test_the_drop_agrees_with_replacing_a_patch_by_hand(model, volume):
    found = occlusion(model, volume, TARGET, batch=4).reshape(2, 3, 2)
    for place in ((1, 0, 0), (1, 2, 1)):
        emptied = volume.clone()
        z, y, x = (8 * index for index in place)
        emptied[:, :, z : z + 8, y : y + 8, x : x + 8] = 0.5
        with torch.no_grad():
            drop = log_odds(model(volume), TARGET) - log_odds(model(emptied), TARGET)
        torch.testing.assert_close(found[place], drop[0], atol=1e-5, rtol=1e-4)
        assert drop.abs() > 1e-4


def test_background_is_exactly_zero_and_not_computed(model, volume, monkeypatch):
    seen = []
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda x: seen.append(len(x)) or forward(x))
    found = occlusion(model, volume, TARGET, batch=4).reshape(2, 3, 2)
    assert (found[0] == 0).all()
    assert seen == [1, 4, 2]  # the whole volume, then the six patches of tissue


def test_windows_tile_the_grid():
    windows = window_of_patch((2, 3, 4), 2)
    assert windows.shape == (2, 3, 4)
    assert windows.unique().tolist() == [0, 1, 2, 3]
    assert windows[:, :2, 2:].unique().tolist() == [1]
    assert windows[0, 2, 0] == 2
    assert torch.equal(window_of_patch((2, 3, 4), 1).flatten(), torch.arange(24))


def test_patches_of_a_window_share_its_drop(model, volume):
    found = occlusion(model, volume, TARGET, window=2).reshape(2, 3, 2)
    assert len(found[:, :2].unique()) == 1
    assert len(found[:, 2].unique()) == 1
    assert found[0, 0, 0] != found[0, 2, 0]


def test_window_is_checked(model, volume):
    with pytest.raises(ValueError, match="--window 0"):
        occlusion(model, volume, TARGET, window=0)


def test_error_is_rounding_only(model, volume):
    found = occlusion(model, volume, TARGET)
    exact = occlusion(model.double(), volume.double(), TARGET)
    assert (found - exact).abs().max() < 1e-5
    assert exact.abs().max() > 1e-3


@pytest.mark.parametrize("window", [1, 2])
def test_drops_of_a_model_that_is_a_sum_over_patches_are_exact(model, volume, monkeypatch, window):
    weight = torch.randn(1, 4, *SIZE)
    monkeypatch.setattr(
        model, "forward", lambda x: torch.nn.functional.pad((weight * x).sum((1, 2, 3, 4))[:, None], (1, 0))
    )
    parts = patch_sums((weight * (volume - 0.5)).sum(1), 8)[0]
    windows = window_of_patch(model.grid, window).flatten()
    expected = torch.zeros(int(windows.max()) + 1).index_add_(0, windows, parts)[windows]
    torch.testing.assert_close(occlusion(model, volume, TARGET, window=window)[0], expected, atol=1e-3, rtol=1e-4)
