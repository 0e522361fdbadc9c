"""Tables, methods paragraph and warnings state the statistics of the results file."""

import pytest

from tests.helpers.score_cases import binormal, predictions
from util.evaluation.baselines import Baseline
from util.evaluation.predictions import Prediction
from util.evaluation.results_file import evaluate
from util.evaluation.summary import summarise
from util.evaluation.tables import without_nan
from vis.reporting.statistics import baseline_table, interval_table, methods_text, warnings_of

NAMES = ("IDH wild type", "IDH mutant")
LABELS, PROBABILITIES = binormal(0, 12, 20, distance=1.5, runs=2)


def results(model=None, rivals=(), protocol=None, subgroups=None, **summary):
    model = model or predictions(LABELS, PROBABILITIES[0])
    options = {"label_type": "IDH", "n_unknown": 4, "k_fold": 5, **summary}
    found = evaluate(
        summarise(model, **options), model, baselines=[Baseline(name, [], rows) for name, rows in rivals],
        protocol={"select": "last", "val_fraction": 0.0, "control": "none", **(protocol or {})}, subgroups=subgroups,
    )  # fmt: skip
    return without_nan(found)


def test_intervals_are_listed_for_every_metric_and_delong():
    found = results()
    header, rows = interval_table(found)
    assert len(header) == len(rows[0]) == 4
    shown = {row[0]: row[1:] for row in rows}
    auc = found["statistics"]["pooled"]["auc"]
    assert shown["AUC"][:2] == [f"{auc['value']:.3f}", f"{auc['low']:.3f} to {auc['high']:.3f}"]
    assert "AUC, DeLong interval" in shown


def test_baselines_stand_under_the_model():
    rivals = [("age", predictions(LABELS, PROBABILITIES[1]))]
    header, rows = baseline_table(results(rivals=rivals, subgroups={"within a part": ["s000", "s031"]}))
    assert [row[0] for row in rows] == ["This model", "This model, within a part", "Age"]
    assert {len(row) for row in rows} == {len(header)}
    assert rows[0][-1] == ""
    assert baseline_table(results()) is None


def test_one_class_gives_dashes():
    one_class = [Prediction("a", 0, 0, 0.1), Prediction("b", 1, 0, 0.2)]
    found = results(one_class)
    assert {row[0]: row[2] for row in interval_table(found)[1]}["AUC"] == "–"  # noqa: RUF001
    assert "permutations" not in methods_text(found, NAMES)


def test_methods_state_protocol_numbers_and_missing_labels():
    text = methods_text(results(rivals=[("age", predictions(LABELS, PROBABILITIES[1]))]), NAMES)
    for words in ("5-fold", "32 subjects of known label (20 IDH wild type, 12 IDH mutant)",
                  "4 subjects of unknown label", "2000 bootstrap resamples", "no choice was based on results",
                  "10000 permutations", "McNemar"):  # fmt: skip
        assert words in text, words


def test_methods_state_what_was_chosen_where():
    protocol = {"val_fraction": 0.2, "select": "best_val", "threshold": "val", "calibrate": "temperature", "repeats": 3,
                "stratify_by": "Grade", "group_by": "Patient"}  # fmt: skip
    model = predictions(LABELS, PROBABILITIES, patients=[f"p{i // 2}" for i in range(32)])
    text = methods_text(results(model, protocol=protocol, repeats=2), NAMES)
    for words in ("3 times repeated 5-fold", "by label and Grade", "All subjects of a patient (n = 16)",
                  "20% of the patients formed a validation set",
                  "select the epoch, a temperature and the threshold.", "used for testing only"):  # fmt: skip
        assert words in text, words


@pytest.mark.parametrize(("control", "words"), [("none", None), ("shuffled_labels", "labels were permuted")])
def test_controls_are_announced(control, words):
    found = warnings_of(results(protocol={"control": control}))
    assert any(words in text for text in found) if words else not found


def test_a_model_without_advantage_over_a_baseline_is_warned_about():
    constant = predictions(LABELS, [0.4] * 32)
    perfect = predictions(LABELS, LABELS * 0.8 + 0.1)
    alike = warnings_of(results(rivals=[("age", predictions(LABELS, PROBABILITIES[0]))]))
    assert 'not shown to be better than the baseline "age"' in alike[0]
    assert any(
        'The baseline "age" has a higher AUC' in text
        for text in warnings_of(results(constant, rivals=[("age", perfect)]))
    )
    assert warnings_of(results(rivals=[("age", constant)])) == []


def test_a_sample_without_errors_has_intervals_of_another_kind():
    perfect = results(predictions(LABELS, LABELS * 0.8 + 0.1))
    assert "cannot tell how rare errors are" in warnings_of(perfect)[0]
    assert "Newcombe's interval (AUC; 2006, method 5)" in methods_text(perfect, NAMES)
    assert "Newcombe" not in methods_text(results(), NAMES)
    shown = {row[0]: row[2] for row in interval_table(perfect)[1]}
    assert shown["AUC"] == shown["AUC, DeLong interval"] == "0.865 to 1.000"
