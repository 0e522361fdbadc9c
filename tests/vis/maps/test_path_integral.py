"""The path integral agrees with a closed form: a layer norm, whose score changes at the start of the path."""

import logging
import math

import pytest
import torch
from torch import nn

from vis.maps.gradients import integrated_gradients
from vis.maps.path_integral import DOUBLINGS, TOLERANCE, Completeness, path_integral

EPS = 1e-4
SIDE = 4


class Normed(nn.Module):
    """Score w x / sqrt(|x|^2 + EPS): the scale is nearly removed, as in the patch embedding."""

    def __init__(self, weight_CZYX):
        super().__init__()
        self.weight_CZYX = weight_CZYX

    def forward(self, x):
        x = x.flatten(1)
        score = (x @ self.weight_CZYX.flatten()) / (x.square().sum(1) + EPS).sqrt()
        return torch.stack([torch.zeros_like(score), score], dim=1)


@pytest.fixture
def problem():
    torch.manual_seed(0)
    weight, volume = torch.randn(1, SIDE, SIDE, SIDE) + 0.3, torch.randn(1, 1, SIDE, SIDE, SIDE) + 0.3
    volume[:, :, 0, 0, 0] = 0  # the background, so that the path starts at zero
    return Normed(weight), volume


def in_closed_form(model, volume):
    """x_i (w_i I1 - x_i (w x) I2).

    I1 and I2 are the integrals over a in 0..1 of 1 / sqrt(a^2 s + e) and of a^2 (a^2 s + e)^-3/2.
    """
    x, w = volume[0].double(), model.weight_CZYX.double()
    s = float(x.square().sum())
    first = math.asinh(math.sqrt(s / EPS)) / math.sqrt(s)
    second = (math.asinh(math.sqrt(s / EPS)) - math.sqrt(s / (s + EPS))) / s**1.5
    return x * (w * first - x * (w * x).sum() * second)


def linear_rule(model, volume, steps):
    """The midpoint rule with equal steps of alpha."""
    total = torch.zeros_like(volume)
    for alpha in (torch.arange(steps) + 0.5) / steps:
        path = (alpha * volume).requires_grad_()
        total += torch.autograd.grad(model(path)[0, 1], path)[0]
    return (volume * total / steps)[0].double()


def test_it_converges_to_the_closed_form_where_equal_steps_do_not(problem):
    model, volume = problem
    exact = in_closed_form(model, volume)
    found = integrated_gradients(model, volume, torch.tensor([1]))
    error = (found.attributions_BCZYX[0].double() - exact).norm() / exact.norm()
    assert error < 0.02
    assert found.completeness[0].is_complete
    steps = found.completeness[0].steps
    assert (linear_rule(model, volume, steps) - exact).norm() / exact.norm() > 10 * error


def test_error_falls_with_the_square_of_the_steps(problem, monkeypatch):
    monkeypatch.setattr("vis.maps.path_integral.TOLERANCE", math.inf)
    model, volume = problem
    exact, target = in_closed_form(model, volume), torch.tensor([1])
    errors = [
        float((integrated_gradients(model, volume, target, steps=n).attributions_BCZYX[0].double() - exact).norm())
        for n in (128, 256)
    ]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.3)


def test_doubling_reuses_what_was_computed_and_equals_starting_there():
    seen = []

    def slopes(alphas, weights):
        seen.extend(alphas.tolist())
        return (weights / (alphas + 0.001)).sum().reshape(1)

    rise = math.log(1.001 / 0.001)
    refined, completeness = path_integral(slopes, rise, steps=4)
    assert completeness.steps > 4
    assert len(seen) == len(set(seen)) == completeness.steps
    direct, _ = path_integral(slopes, rise, completeness.steps)
    torch.testing.assert_close(refined, direct)


def test_a_gap_above_the_tolerance_is_warned_about_once_with_the_remedy(caplog):
    parts, found = path_integral(lambda alphas, weights: weights.sum().reshape(1) * 0, difference=3.0, steps=2)
    assert parts.item() == 0
    assert found == Completeness(1.0, 2 * 2**DOUBLINGS)
    with caplog.at_level(logging.WARNING):
        found.warn("sub-01")
        Completeness(TOLERANCE, 16).warn("sub-02")
    assert len(caplog.records) == 1
    assert "sub-01: integrated gradients: completeness gap 100.0%" in caplog.text
    assert "raise --steps" in caplog.text
    assert str(found) == "completeness gap 100.0% (32 steps), not reliable"
    assert str(Completeness(TOLERANCE, 16)) == "completeness gap 2.0% (16 steps)"


def test_a_tiny_difference_is_not_refined():
    _, found = path_integral(lambda alphas, weights: weights.sum().reshape(1) * 1e-6, difference=0.0, steps=2)
    assert found.steps == 2


def test_steps_are_checked():
    with pytest.raises(ValueError, match="--steps 0"):
        path_integral(lambda alphas, weights: weights, 1.0, steps=0)
