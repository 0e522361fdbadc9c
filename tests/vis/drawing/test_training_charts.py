"""Charts show the numbers they are given."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tests.helpers.vis_cases import texts
from util.evaluation.predictions import Prediction
from vis.drawing.style import png_bytes
from vis.drawing.training_charts import (
    confusion_chart,
    fold_chart,
    pretraining_chart,
    probability_chart,
    roc_chart,
    series,
)

NAMES = ("IDH wild type", "IDH mutant")


@pytest.fixture
def predictions():
    generator = np.random.default_rng(0)
    return [Prediction(f"S{i:02d}", i % 3, int(generator.random() < 0.4), float(generator.random())) for i in range(40)]


def test_series_counts_from_one_and_passes_over_what_is_absent():
    rows = [
        {"epoch": 0, "a": 1.0},
        {"epoch": 1, "a": None},
        {"epoch": 2},
        {"epoch": 3, "a": np.nan},
        {"epoch": 4, "a": 2},
    ]
    epochs, values = series(rows, "a")
    assert epochs.tolist() == [1, 5]
    assert values.tolist() == [1, 2]


def test_baseline_is_drawn_where_recorded():
    rows = [{"epoch": i, "train_loss": 1 - 0.1 * i, "baseline_loss": 0.8} for i in range(4)]
    with_baseline, without = pretraining_chart(rows), pretraining_chart([{"epoch": 0, "train_loss": 1.0}])
    assert [len(figure.axes[0].lines) for figure in (with_baseline, without)] == [2, 1]
    np.testing.assert_allclose(with_baseline.axes[0].lines[0].get_ydata(), [1, 0.9, 0.8, 0.7])
    assert png_bytes(without)


def test_mean_over_folds_uses_the_folds_that_have_the_epoch():
    short, long = (
        [{"epoch": 0, "train_loss": 1.0, "test_auc": 0.5}],
        [{"epoch": e, "train_loss": 3.0} for e in range(2)],
    )
    figure = fold_chart({0: short, 1: long})
    losses = figure.axes[0].lines
    assert len(losses) == 3
    np.testing.assert_allclose(losses[-1].get_ydata(), [2, 3])
    assert png_bytes(figure)


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
