import pytest

from util.metrics import classification_metrics
from util.results import (
    Prediction,
    aligned,
    format_table,
    pooled_metrics,
    read_predictions,
    summarise,
    without_nan,
    write_predictions,
)

PREDICTIONS = [
    Prediction("=1+1", 0, 1, 0.9), Prediction("b", 0, 0, 0.2), Prediction("c", 0, 0, 0.6),
    Prediction("d", 1, 1, 0.7), Prediction("e", 1, 0, 0.1),
]  # fmt: skip


def summary(**kwargs):
    return summarise(PREDICTIONS, **{"label_type": "IDH", "n_unknown": 3, "k_fold": 3, **kwargs})


def test_pooled_and_per_fold_metrics():
    found = summary()
    assert found["pooled"] == classification_metrics([1, 0, 0, 1, 0], [0.9, 0.2, 0.6, 0.7, 0.1])
    assert [row["n"] for row in found["per_fold"]] == [3, 2]
    assert found["mean"]["accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    assert found["sd"]["accuracy"] == pytest.approx(abs(2 / 3 - 1) / 2**0.5)
    assert found["missing_folds"] == [2]


def test_repeats_are_averaged_and_subjects_counted_once():
    again = [Prediction(p.subject, p.fold + 3, p.label, 1 - p.probability, 1) for p in PREDICTIONS]
    found = summarise([*PREDICTIONS, *again], label_type="IDH", n_unknown=0, k_fold=3, repeats=2)
    assert (found["n"], found["n_positive"], found["missing_folds"]) == (5, 2, [2, 5])
    assert found["pooled"]["auc"] == pytest.approx(0.5)


def test_thresholds_decide():
    moved = [Prediction("a", 0, 1, 0.3, threshold=0.25), Prediction("b", 0, 0, 0.4, threshold=0.45)]
    assert pooled_metrics(moved)["accuracy"] == 1


def test_a_fold_of_one_class_says_na():
    rows = [Prediction("a", 0, 0, 0.1), Prediction("b", 1, 1, 0.9)]
    text = format_table(summarise(rows, label_type="IDH", n_unknown=0, k_fold=2))
    assert "n/a" in text
    assert "nan" not in text


def test_predictions_survive_the_file(tmp_path):
    full = [*PREDICTIONS, Prediction("f", 4, 1, 0.25, 1, 0.4, "patient, 1")]
    write_predictions(tmp_path / "p.csv", full)
    assert read_predictions(tmp_path / "p.csv") == sorted(full)


def test_a_file_of_an_older_run_reads(tmp_path):
    (tmp_path / "p.csv").write_text("subject,fold,label,probability\na,1,0,0.25\n")
    assert read_predictions(tmp_path / "p.csv") == [Prediction("a", 1, 0, 0.25)]


@pytest.mark.parametrize(
    ("text", "message"),
    [("subject,fold,label\n", "no column probability"), ("", "no column subject, fold"),
     ("subject,fold,label,probability\na,0,1,0.5\nb,0,x,0.5\n", "line 3: .*'x'"),
     ("subject,fold,label,probability\na,0\n", "line 2")],
)  # fmt: skip
def test_bad_files_are_named(tmp_path, text, message):
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(ValueError, match=rf"p\.csv.*{message}"):
        read_predictions(tmp_path / "p.csv")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match="is missing: no fold of that run has finished"):
        read_predictions(tmp_path / "p.csv")


def test_nan_becomes_none_everywhere():
    assert without_nan({"a": [float("nan"), 1.0, {"b": float("nan")}]}) == {"a": [None, 1.0, {"b": None}]}


def test_the_table_says_what_was_left_out():
    text = format_table(summary())
    assert "5 subjects (2 positive), 3 of unknown label left out" in text
    assert "folds that have not run: 2" in text


def test_columns_line_up():
    assert aligned([["a", "bbb"], ["cc", "1"]]) == ["a   bbb", "cc    1"]
