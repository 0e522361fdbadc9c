"""Evaluation charts show the values that they receive."""

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from sklearn.metrics import roc_auc_score

from tests.helpers.score_cases import binormal, scores
from tests.helpers.vis_cases import texts
from util.evaluation.predictions import Prediction
from util.statistics.curves import reliability
from vis.drawing.evaluation_charts import (
    calibration_chart,
    comparison_chart,
    confusion_chart,
    fold_dots_chart,
    precision_recall_chart,
    probability_chart,
    roc_chart,
)
from vis.drawing.style import png_bytes

NAMES = ("IDH wild type", "IDH mutant")
SAMPLE = scores(*binormal(0, 20, 30))


@pytest.fixture
def predictions():
    generator = np.random.default_rng(0)
    return [Prediction(f"S{i:02d}", i % 3, int(generator.random() < 0.4), float(generator.random())) for i in range(40)]


def test_roc_has_chance_folds_and_pooled(predictions):
    figure = roc_chart(predictions)
    drawn = [line for line in figure.axes[0].lines if len(line.get_xdata())]
    assert len(drawn) == 5
    area = roc_auc_score([p.label for p in predictions], [p.probability for p in predictions])
    assert any(f"AUC {area:.3f}" in text for text in texts(figure))
    x, y = drawn[-1].get_xdata(), drawn[-1].get_ydata()
    assert np.trapezoid(y, x) == pytest.approx(area)


def test_roc_of_one_class_is_only_chance():
    figure = roc_chart([Prediction("A", 0, 1, 0.4), Prediction("B", 0, 1, 0.6)])
    assert len([line for line in figure.axes[0].lines if len(line.get_xdata())]) == 1


def test_confusion_counts_truth_in_rows():
    cells = [(0, 0.1)] * 5 + [(0, 0.9)] * 2 + [(1, 0.2)] * 3 + [(1, 0.5)] * 7  # 0.5 counts as class 1
    figure = confusion_chart([Prediction(f"S{i}", 0, *cell) for i, cell in enumerate(cells)], NAMES)
    place = {text.get_text(): text.get_position() for text in figure.axes[0].texts}
    assert [round(place[n][1]) for n in ("5", "2", "3", "7")] == [0, 0, 1, 1]
    assert [place[n][0] for n in ("5", "2", "3", "7")] == [0, 1, 0, 1]
    assert "71% of row" in place
    assert "70% of row" in place


def test_every_prediction_is_a_dot_in_the_row_of_its_class(predictions):
    figure = probability_chart(predictions, NAMES)
    for label, dots in enumerate(figure.axes[0].collections):
        expected = sorted(p.probability for p in predictions if p.label == label)
        offsets = np.asarray(dots.get_offsets())
        np.testing.assert_allclose(sorted(offsets[:, 0]), expected)
        assert (np.abs(offsets[:, 1] - label) <= 0.25).all()
    assert png_bytes(figure)


def test_precision_and_recall_of_folds_of_all_pooled_and_of_chance():
    figure = precision_recall_chart(SAMPLE)
    drawn = [line for line in figure.axes[0].lines if len(line.get_xdata())]
    assert len(drawn) == 1 + 5 + 1  # chance, folds, pooled
    assert drawn[0].get_ydata()[0] == 0.4
    pooled = drawn[-1]
    assert pooled.get_xdata()[0] == 1  # all subjects positive: full recall at the share of the class
    assert pooled.get_ydata()[0] == pytest.approx(0.4)
    assert png_bytes(figure)


def test_one_class_draws_no_curve():
    figure = precision_recall_chart(scores([0, 0, 0], [0.1, 0.2, 0.3]))
    assert len([line for line in figure.axes[0].lines if len(line.get_xdata())]) == 1


def test_calibration_shows_the_groups_and_every_subject():
    figure = calibration_chart(SAMPLE, "IDH mutant")
    groups = reliability(SAMPLE)
    shown = next(line for line in figure.axes[0].lines if line.get_marker() == "o")
    np.testing.assert_allclose(shown.get_xdata(orig=False), [g.predicted for g in groups])
    np.testing.assert_allclose(shown.get_ydata(orig=False), [g.observed for g in groups])
    assert sum(bar.get_height() for bar in figure.axes[1].patches) == 50
    assert any("IDH mutant" in text for text in texts(figure))
    assert png_bytes(figure)


def test_every_fold_is_a_dot_and_undefined_ones_are_not():
    names = ("auc", "accuracy")
    results = {
        "per_fold": [{"fold": 0, "auc": 0.8, "accuracy": 0.7}, {"fold": 1, "auc": None, "accuracy": 0.9}],
        "mean": {"auc": 0.8, "accuracy": 0.8}, "pooled": {"auc": 0.75, "accuracy": 0.8},
        "statistics": {"pooled": {name: {"value": 0.75, "low": 0.6, "high": 0.9} for name in names}},
    }  # fmt: skip
    figure = fold_dots_chart(results)
    dots = [c for c in figure.axes[0].collections if isinstance(c, PathCollection) and len(c.get_offsets())]
    assert [sorted(np.asarray(d.get_offsets())[:, 1]) for d in dots] == [[0.8], [0.7, 0.9]]
    intervals = [line.get_ydata() for line in figure.axes[0].lines if line.get_ydata() is not None]
    assert sum(list(y) == [0.6, 0.9] for y in intervals) == 2
    del results["statistics"]  # an older run
    assert png_bytes(fold_dots_chart(results))


def test_comparison_has_a_curve_an_area_and_a_difference_per_run():
    other = scores(*binormal(1, 20, 30))
    area = {"value": 0.8, "low": 0.7, "high": 0.9}
    figure = comparison_chart({"a": SAMPLE, "b": other}, {"a": area, "b": area}, {"b": {**area, "low": -0.1}})
    curves, levels, forest = figure.axes
    assert len(curves.lines) == 3
    assert [tick.get_text() for tick in levels.get_yticklabels()] == ["a", "b"]
    assert any(list(line.get_xdata()) == [-0.1, 0.9] for line in forest.lines)
    assert forest.get_xlabel() == "AUC minus that of a"
    assert png_bytes(figure)
