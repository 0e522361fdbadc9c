"""Deletion and insertion for a model whose important patch is known."""

import numpy as np
import pytest
import torch
from torch import nn

from tests.helpers.vis_cases import SIZE, tiny_classifier
from vis.map_checks.deletion_insertion import FRACTIONS, deletion_insertion_areas

HAS_BRAIN = np.array([True] * 10 + [False] * 2)


@pytest.fixture
def model(monkeypatch):
    """The probability of class 1 depends on the brightness of patch 4 only."""
    model = tiny_classifier()
    monkeypatch.setattr(model, "forward", lambda v: nn.functional.pad(v[:, :1, :8, 16:24, :8].mean((2, 3, 4)), (1, 0)))
    return model


def test_a_map_with_the_important_patch_first_has_the_best_areas(model):
    volume = torch.zeros(1, 4, *SIZE)
    volume[:, :, 1:] = 6
    right, wrong = np.zeros(12), np.zeros(12)
    right[4], wrong[4], right[10], wrong[11] = 1, -1, 9, 9  # patches 10 and 11 hold no brain: never changed
    best, worst = (deletion_insertion_areas(model, volume, values, HAS_BRAIN, 1, batch=5) for values in (right, wrong))
    assert best["deletion"] < worst["deletion"]
    assert best["insertion"] > worst["insertion"]
    # computed by hand: of 10 patches, 5% is none (round half to even), 10% is the best one
    high, low = torch.tensor([6 * 7 / 8, 0.0]).sigmoid().tolist()
    shares = (0, *FRACTIONS, 1)
    assert best["deletion"] == pytest.approx(np.trapezoid([high, high, low, low, low, low, low], shares))
    assert best["insertion"] == pytest.approx(np.trapezoid([low, low, high, high, high, high, high], shares))
    assert worst["insertion"] == pytest.approx(np.trapezoid([low] * 6 + [high], shares))


def test_the_model_runs_in_batches_and_stays_unchanged():
    model, volume = tiny_classifier().train(), torch.randn(1, 4, *SIZE)
    one, all_at_once = (
        deletion_insertion_areas(model, volume, np.arange(12.0), HAS_BRAIN, 0, batch=b) for b in (1, 20)
    )
    assert one == pytest.approx(all_at_once, abs=1e-5)
    assert model.training


def test_coarse_curves_stay_within_the_stated_error(model):
    """One decisive patch gives the steepest curve; the bound holds for every position in the order."""
    volume = torch.zeros(1, 4, *SIZE)
    volume[:, :, 1:] = 60
    gaps = np.diff((0, *FRACTIONS, 1)).max() / 2
    assert gaps == pytest.approx(0.15)
    fine = np.linspace(0, 1, 102)[1:-1]
    errors = []
    for rank in range(10):
        others = [place for place in range(10) if place != 4]
        values = np.zeros(12)
        values[[*others[:rank], 4, *others[rank:]]] = np.arange(10, 0, -1)
        coarse, exact = (
            deletion_insertion_areas(model, volume, values, HAS_BRAIN, 1, batch=300, fractions=shares)
            for shares in (FRACTIONS, fine)
        )
        errors += [abs(coarse[name] - exact[name]) for name in coarse]
    assert 0.05 < max(errors) <= gaps + 0.01  # 0.01: the error of the fine curves
