"""Training charts show the values of the metrics files."""

import numpy as np

from vis.drawing.style import png_bytes
from vis.drawing.training_charts import fold_chart, pretraining_chart, series


def test_series_counts_from_one_and_skips_missing_values():
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
