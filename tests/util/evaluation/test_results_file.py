import json

import openpyxl
import pytest

from tests.helpers.score_cases import binormal, predictions
from util.evaluation.baselines import Baseline
from util.evaluation.predictions import Prediction, arrange
from util.evaluation.results_file import comparison_rows, evaluate, format_statistics, statistics_of, write_results
from util.evaluation.summary import summarise
from util.statistics.metrics import METRICS

LABELS, PROBABILITIES = binormal(0, 12, 20, distance=2, runs=2)
MODEL, OTHER = (predictions(LABELS, one) for one in PROBABILITIES)


def evaluated(model=MODEL, **options):
    summary = summarise(model, label_type="IDH", n_unknown=2, k_fold=5)
    baselines = [Baseline("age", ["age"], [p for p in OTHER if p.subject != "s003"]), Baseline("none known", [], [])]
    options = {"baselines": baselines, "protocol": {"k_fold": 5, "select": "last", "folds_csv": None}, **options}
    return evaluate(summary, model, **options)


@pytest.fixture(scope="module")
def results():
    return evaluated(subgroups={"half": [f"s{i:03d}" for i in range(0, 32, 2)], "nobody": ["x"]})


def test_statistics_hold_every_metric_with_an_interval(results):
    found = results["statistics"]
    assert tuple(found["pooled"]) == METRICS
    for name, shown in found["pooled"].items():
        assert shown["value"] == pytest.approx(results["pooled"][name])
        assert shown["low"] < shown["high"]
    assert (found["n"], found["n_positive"], found["n_patients"], found["resamples"]) == (32, 12, 32, 2000)
    assert found["delong"]["auc"] == pytest.approx(found["pooled"]["auc"]["value"])
    assert found["permutation_p"] < 0.01


def test_baselines_are_compared_on_the_subjects_they_know(results):
    (entry,) = results["baselines"]  # the one that knows nobody is left out
    assert entry["statistics"]["n"] == entry["model_minus_baseline"]["n"] == 31
    model = statistics_of(arrange([p for p in MODEL if p.subject != "s003"]))["pooled"]["auc"]["value"]
    difference = model - entry["statistics"]["pooled"]["auc"]["value"]
    assert entry["model_minus_baseline"]["differences"]["auc"]["value"] == pytest.approx(difference)


def test_subgroups_without_predictions_are_passed_over(results):
    assert [(part["name"], part["statistics"]["n"]) for part in results["subgroups"]] == [("half", 16)]


def test_files_hold_the_same_numbers(results, tmp_path):
    write_results(tmp_path, MODEL, results)
    stored = json.loads((tmp_path / "results.json").read_text(), parse_constant=pytest.fail)
    assert stored["statistics"]["pooled"]["auc"] == results["statistics"]["pooled"]["auc"]
    book = openpyxl.load_workbook(tmp_path / "results.xlsx")
    assert book.sheetnames == ["summary", "per fold", "per subject", "comparisons", "settings"]
    summary = {row[0]: row[1:] for row in book["summary"].iter_rows(values_only=True)}
    auc = stored["statistics"]["pooled"]["auc"]
    assert summary["auc"][:3] == pytest.approx((auc["value"], auc["low"], auc["high"]))
    assert len(list(book["per subject"].iter_rows())) == 33
    settings = dict(book["settings"].iter_rows(min_row=2, values_only=True))
    assert (settings["k_fold"], settings["select"], settings["n_unknown"], settings["folds_csv"]) == (
        5,
        "last",
        2,
        "None",
    )
    compared = list(book["comparisons"].iter_rows(values_only=True))
    assert [row[0] for row in compared[1:]] == ["this model", "half", "age"]
    assert compared[3][7] == pytest.approx(
        results["baselines"][0]["model_minus_baseline"]["differences"]["auc"]["value"]
    )


def test_one_class_is_written_and_not_a_crash(tmp_path):
    one_class = [Prediction("a", 0, 0, 0.1), Prediction("b", 1, 0, 0.2)]
    found = evaluated(one_class, baselines=[], subgroups={})
    write_results(tmp_path, one_class, found)
    stored = json.loads((tmp_path / "results.json").read_text(), parse_constant=pytest.fail)
    assert stored["pooled"]["auc"] is None
    assert stored["statistics"]["pooled"]["auc"] == {"value": None, "low": None, "high": None}
    assert "n/a" in format_statistics(found)


def test_the_printed_table_names_the_rows(results):
    text = format_statistics(results)
    for words in ("balanced accuracy", "2000 bootstrap resamples", "this model", "half", "age", "shuffled labels p = "):
        assert words in text
    assert len({len(row) for row in comparison_rows(results)}) == 1
