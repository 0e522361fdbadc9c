"""Tables of probes: the same numbers as text, JSON and CSV; undefined ones are empty, not NaN."""

import csv
import json

import pytest

from util.evaluation.predictions import Prediction, read_predictions
from util.probing.results import ProbeRow, write_probe_results


def row(probe, scores, labels=(0, 1, 0, 1)):
    """Two folds of two subjects."""
    predictions = [Prediction(f"s{i}", i // 2, labels[i], score) for i, score in enumerate(scores)]
    return ProbeRow("a.pth", 11, probe, [{"C": 1.0}, {"C": 0.1}], predictions)


@pytest.fixture
def written(tmp_path):
    rows = [row("knn", (0.1, 0.9, 0.2, 0.8)), row("logistic", (0.9, 0.1, 0.2, 0.8), labels=(0, 1, 1, 1))]
    table = write_probe_results(tmp_path, rows, label_type="IDH", n_unknown=3, k_fold=2, folds_hash="x")
    return tmp_path, rows, table


def test_json_csv_and_print_agree(written):
    folder, _, table = written
    results = json.loads((folder / "results.json").read_text())
    assert (results["label_type"], results["n_unknown"], results["k_fold"]) == ("IDH", 3, 2)
    perfect, odd = results["rows"]
    assert (perfect["mean"]["auc"], perfect["sd"]["auc"], perfect["pooled"]["accuracy"]) == (1.0, 0.0, 1.0)
    assert [fold["auc"] for fold in odd["per_fold"]] == [0.0, None]  # fold 1 holds one class only
    lines = list(csv.DictReader((folder / "results.csv").read_text().splitlines()))
    assert [line["fold"] for line in lines] == ["0", "1", "mean", "sd", "pooled"] * 2
    assert (lines[4]["auc"], lines[4]["n"], lines[0]["chosen"]) == ("1.0", "4", '{"C": 1.0}')
    assert [line["auc"] for line in lines[5:7]] == ["0.0", ""]
    assert float(lines[9]["auc"]) == pytest.approx(odd["pooled"]["auc"])
    printed = table.splitlines()
    assert len(printed) == 3
    assert printed[1].split()[:3] == ["a.pth", "11", "knn"]
    assert printed[1].split()[3:] == ["1.000", "(0.000)", "1.000", "1.000", "(0.000)", "1.000"]


def test_predictions_of_every_row_can_be_compared_later(written):
    folder, rows, _ = written
    for entry, expected in zip(json.loads((folder / "results.json").read_text())["rows"], rows, strict=True):
        assert read_predictions(folder / entry["predictions"]) == expected.predictions
