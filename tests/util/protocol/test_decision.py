import json

import numpy as np
import pytest

from util.protocol.decision import MAX_TEMPERATURE, MIN_TEMPERATURE, Decision, calibrated, fit_decision, read_decision
from util.run_folder import DECISION
from util.statistics.metrics import classification_metrics


def overconfident(seed, count=400, factor=3.0):
    """Labels drawn from calibrated probabilities, and those probabilities with their log-odds times `factor`."""
    generator = np.random.default_rng(seed)
    log_odds = generator.normal(0, 1.5, count)
    labels = (generator.random(count) < 1 / (1 + np.exp(-log_odds))).astype(int)
    return labels, 1 / (1 + np.exp(-factor * log_odds))


def test_temperature_undoes_overconfidence_on_other_subjects():
    decision = fit_decision(*overconfident(0), fit_temperature=True, fit_threshold=False)
    assert decision.temperature == pytest.approx(3, rel=0.3)
    assert decision.threshold == 0.5
    labels, probabilities = overconfident(1)
    before = classification_metrics(labels, probabilities)
    after = classification_metrics(labels, calibrated(probabilities, decision.temperature))
    assert after["brier"] < before["brier"]
    assert after["ece"] < before["ece"] / 2
    assert (after["auc"], after["accuracy"]) == (before["auc"], before["accuracy"])


def test_scaling_by_one_changes_nothing_and_extremes_stay_finite():
    values = np.array([0.0, 0.2, 1.0])
    assert calibrated(values, 1.0).tolist() == values.tolist()
    assert np.isfinite(calibrated(values, 2.0)).all()
    np.testing.assert_allclose(calibrated(np.array([0.8]), 2.0), 2 / 3)  # odds 4, their root 2


def test_separated_validation_parts_stop_at_the_bound():
    found = fit_decision(np.array([0, 0, 1, 1]), np.array([0.4, 0.45, 0.55, 0.6]), fit_temperature=True,
                         fit_threshold=False)  # fmt: skip
    assert found.temperature == pytest.approx(MIN_TEMPERATURE, rel=0.01)


def test_the_temperature_is_that_of_the_smallest_loss():
    """To the last digits: a search that compares losses finds half of them, and which ones depends on the machine."""
    labels, probabilities = overconfident(2)
    best = fit_decision(labels, probabilities, fit_temperature=True, fit_threshold=False).temperature
    log_odds = np.log(probabilities / (1 - probabilities))
    residuals = 1 / (1 + np.exp(-log_odds / best)) - labels
    assert abs((residuals * log_odds).mean()) < 1e-11 * np.abs(residuals * log_odds).mean()


@pytest.mark.parametrize(("probabilities", "temperature"), [([0.5] * 4, 1.0), ([0.6, 0.7, 0.4, 0.1], MAX_TEMPERATURE)],
                         ids=["no information", "worse than none"])  # fmt: skip
def test_without_a_best_temperature_it_is_one_or_at_the_bound(probabilities, temperature):
    found = fit_decision(np.array([0, 0, 1, 1]), np.array(probabilities), fit_temperature=True, fit_threshold=False)
    assert found.temperature == temperature


def test_threshold_lies_midway_where_the_classes_part():
    labels, values = np.array([0, 0, 0, 1, 1]), np.array([0.1, 0.15, 0.2, 0.3, 0.9])
    assert fit_decision(labels, values, fit_temperature=False, fit_threshold=True) == Decision(1.0, 0.25)


def test_of_equal_thresholds_the_one_nearest_a_half():
    labels, values = np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.8, 0.9])
    assert fit_decision(labels, values, fit_temperature=False, fit_threshold=True).threshold == 0.5
    one_class = fit_decision(np.ones(3), np.array([0.1, 0.2, 0.3]), fit_temperature=False, fit_threshold=True)
    assert one_class.threshold == 0.5


def test_a_decision_is_read_as_it_was_saved(tmp_path):
    decision = Decision(1.7, 0.31, "best_val", "flip")
    decision.save(tmp_path)
    assert read_decision(tmp_path, {}) == decision
    assert [path.name for path in tmp_path.iterdir()] == [DECISION]


def test_without_the_file_fitted_values_are_an_error_and_others_come_from_the_options(tmp_path):
    assert read_decision(tmp_path, {}) == Decision()
    options = {"calibrate": "none", "threshold": "fixed", "select": "best_val", "tta": "flip"}
    assert read_decision(tmp_path, options) == Decision(select="best_val", tta="flip")
    for asked in ({"calibrate": "temperature"}, {"threshold": "val"}):
        with pytest.raises(ValueError, match=r"decision\.json is missing, .* --(calibrate|threshold) .* with --eval"):
            read_decision(tmp_path, options | asked)


@pytest.mark.parametrize("wrong", [{"temperature": 0}, {"temperature": float("nan")}, {"threshold": 1.5}, {"tta": "x"},
                                   {"select": "first"}, {"unknown": 1}, {"temperature": "hot"}, None])  # fmt: skip
def test_a_decision_that_makes_no_sense_is_refused(tmp_path, wrong):
    (tmp_path / DECISION).write_text("[" if wrong is None else json.dumps(wrong))
    with pytest.raises(ValueError, match=r"decision\.json cannot be used .*--eval"):
        read_decision(tmp_path, {})
