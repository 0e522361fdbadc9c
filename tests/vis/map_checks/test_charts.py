"""The contents of the map check chart."""

from tests.helpers.vis_cases import texts
from vis.drawing.style import BLUE, MUTED, ORANGE, png_bytes
from vis.map_checks.charts import map_check_chart


def entry(name, *, trivial=False, verdict="passes", auc=(0.7, 0.6, 0.8)):
    return {"method": name, "trivial": trivial, "verdict": verdict, "auc": auc, "deletion_gain": None,
            "insertion_gain": (0.1, 0.0, 0.2)}  # fmt: skip


def test_colours_show_the_verdict_and_missing_scores_stay_empty():
    table = [
        entry("flair", trivial=True, verdict=""),
        entry("max"),
        entry("pca", verdict="fails: x"),
        entry("no", auc=None),
    ]
    stages = ("head", "last block", "upper half", "everything")
    similarities = [{"method": "max", "stage": s, "similarity": -0.5} for s in stages]
    figure = map_check_chart(table, similarities, phantom=True)
    auc, gain, right = figure.axes
    assert [line.get_color() for line in auc.lines if line.get_marker() == "o"] == [MUTED, BLUE, ORANGE]
    assert [label.get_text() for label in auc.get_yticklabels()] == ["flair", "max", "pca", "no"]
    assert sum(line.get_marker() == "o" for line in gain.lines) == 4
    assert right.lines[0].get_ydata().tolist() == [1.0, 0.5, 0.5, 0.5, 0.5]
    assert any("Simulated phantom" in text for text in texts(figure))
    assert png_bytes(figure)


def test_without_randomisation_or_phantom():
    figure = map_check_chart([entry("max")], [])
    assert not figure.axes[2].lines
    assert not any("Simulated phantom" in text for text in texts(figure))
