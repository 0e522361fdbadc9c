import json

import openpyxl
import pytest

from util.metrics import classification_metrics
from util.results import Prediction, format_table, read_predictions, summarise, write_predictions, write_results

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


def test_predictions_survive_the_file(tmp_path):
    write_predictions(tmp_path / "p.csv", PREDICTIONS)
    assert read_predictions(tmp_path / "p.csv") == sorted(PREDICTIONS)


def test_results_are_numbers_in_json_and_excel(tmp_path):
    one_class = [Prediction("a", 0, 0, 0.1)]
    write_results(tmp_path, one_class, summarise(one_class, label_type="IDH", n_unknown=0, k_fold=1))
    assert json.loads((tmp_path / "results.json").read_text(), parse_constant=pytest.fail)["pooled"]["auc"] is None
    write_results(tmp_path, PREDICTIONS, summary())
    book = openpyxl.load_workbook(tmp_path / "results.xlsx")
    rows = list(book["folds"].iter_rows(values_only=True))
    assert rows[0][:3] == ("fold", "n", "accuracy")
    assert rows[1][2] == pytest.approx(2 / 3)
    assert rows[-1][:2] == ("pooled", 5)
    names = [cell.value for cell in book["subjects"]["A"]]
    assert names == ["subject", "=1+1", "b", "c", "d", "e"]
    assert book["subjects"]["A2"].data_type == "s"


def test_the_table_says_what_was_left_out():
    text = format_table(summary())
    assert "5 subjects (2 positive), 3 of unknown label left out" in text
    assert "folds that have not run: 2" in text
