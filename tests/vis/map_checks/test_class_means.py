"""Mean maps per class; class-specific maps explain class 1."""

import numpy as np
import torch

from tests.helpers.vis_cases import texts
from util.inference.study import Study
from vis.map_checks.class_means import ClassMeans
from vis.map_checks.subject import SubjectResult


def result(label, target, level):
    volume = np.zeros((1, 8, 8, 8), np.float32)
    volume[:, 1:7, 1:7, 1:7] = np.random.default_rng(0).normal(size=(1, 6, 6, 6))
    study = Study("S", ("flair",), volume, oriented=True)
    maps = {"gradient": torch.full((2, 2, 2), level), "max": torch.full((2, 2, 2), level)}
    return SubjectResult(study, label, target, maps, [], [])


def test_means_are_per_class_and_explain_class_1():
    class_means = ClassMeans()
    for label, target, level in ((0, 0, 3.0), (0, 1, 1.0), (1, 1, 5.0), (-1, 1, 99.0)):
        class_means.add(result(label, target, level))
    assert class_means.counts == {0: 2, 1: 1}
    np.testing.assert_allclose(class_means.mean("gradient", 0), -1)
    np.testing.assert_allclose(class_means.mean("gradient", 1), 5)
    np.testing.assert_allclose(class_means.mean("max", 0), 2)
    assert class_means.mean("max", 0).shape == (8, 8, 8)


def test_figure_has_a_row_per_class_with_its_count():
    class_means = ClassMeans()
    assert not class_means.has("max")
    class_means.add(result(0, 0, 1.0))
    class_means.add(result(1, 1, 2.0))
    shown = texts(class_means.figure("gradient", ("wild type", "mutant"), phantom=True))
    assert {"wild type\n(n = 1)", "mutant\n(n = 1)"} <= set(shown)
    assert any("log-odds of mutant" in text for text in shown)
    assert any("Simulated phantom" in text for text in shown)
