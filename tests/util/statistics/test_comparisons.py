import dataclasses
import math

import numpy as np
import pytest
from scipy.stats import binom, mannwhitneyu, permutation_test, ttest_1samp

from tests.helpers.score_cases import binormal, scores
from util.statistics.bootstrap import bootstrap_differences
from util.statistics.comparisons import compare_scores, corrected_t_test, fold_test, holm, mcnemar, permutation_p
from util.statistics.metrics import classification_metrics


def test_mcnemar_is_the_binomial_of_the_disagreements():
    a = np.array([1] * 9 + [0] * 2 + [1] * 20 + [0] * 5, bool)  # 9 only a, 2 only b, 25 alike
    b = np.array([0] * 9 + [1] * 2 + [1] * 20 + [0] * 5, bool)
    found = mcnemar(a, b)
    assert (found.only_first, found.only_second) == (9, 2)
    assert found.p == pytest.approx(2 * binom.cdf(2, 11, 0.5))
    assert mcnemar(b, a).p == found.p
    assert mcnemar(a, a).p == 1


def test_corrected_t_by_hand_and_without_correction_as_scipy():
    values = [0.02, 0.05, -0.01, 0.03, 0.06]
    plain = ttest_1samp(values, 0)
    assert corrected_t_test(values, 0.0).p == pytest.approx(plain.pvalue)
    found = corrected_t_test(values, 0.25)  # 5 folds: variance times 1/5 + 1/4 instead of 1/5
    assert found.t == pytest.approx(plain.statistic * math.sqrt(0.2 / 0.45))
    assert (found.df, found.mean) == (4, pytest.approx(0.03))
    assert found.p > plain.pvalue


def test_folds_without_a_value_are_left_out():
    assert corrected_t_test([0.1, math.nan, 0.3], 0.5) == corrected_t_test([0.1, 0.3], 0.5)
    assert math.isnan(corrected_t_test([0.1, math.nan], 0.5).p)
    assert corrected_t_test([0.0, 0.0], 0.5).p == 1
    alone, none = corrected_t_test([0.1], 0.5), corrected_t_test([math.nan, math.nan], 0.5)
    assert (alone.mean, alone.df) == (0.1, 0)
    assert math.isnan(none.mean)
    assert none.df == 0
    assert math.isnan(corrected_t_test([0.1, 0.1], 0.5).p)


def test_the_corrected_t_test_keeps_its_level_and_the_plain_one_does_not():
    """Folds whose models share most of their training data: differences with correlation 1 / k, mean 0."""
    generator = np.random.default_rng(0)
    k, draws = 5, 2000
    shared = generator.normal(size=(draws, 1)) * math.sqrt(1 / k)
    folds = shared + generator.normal(size=(draws, k)) * math.sqrt(1 - 1 / k)
    corrected = np.mean([corrected_t_test(row, 1 / (k - 1)).p < 0.05 for row in folds])
    plain = np.mean([corrected_t_test(row, 0.0).p < 0.05 for row in folds])
    assert corrected <= 0.065
    assert plain > 0.1


def test_permutation_p_agrees_with_scipy():
    labels, one = binormal(3, 12, 15, distance=0.6, ties=True)
    ours = permutation_p(scores(labels, one), permutations=9999)
    theirs = permutation_test(
        (one[0, :12], one[0, 12:]), lambda x, y: mannwhitneyu(x, y).statistic, permutation_type="independent",
        alternative="greater", n_resamples=2000, rng=np.random.default_rng(1), vectorized=False,
    )  # fmt: skip
    assert ours == pytest.approx(theirs.pvalue, abs=0.02)


def test_folds_that_differ_by_rounding_alone_give_no_t():
    apart = corrected_t_test([0.9 - 0.8, 0.8 - 0.7, 0.7 - 0.6, 0.4 - 0.3], 0.25)
    assert apart.mean == pytest.approx(0.1)
    assert math.isnan(apart.t)
    assert math.isnan(apart.p)
    equal = corrected_t_test([0.3 - 0.2 - 0.1, 0.0, 0.1 + 0.2 - 0.3], 0.25)
    assert math.isnan(equal.t)
    assert equal.p == 1
    assert corrected_t_test([1e-6, 2e-6, 3e-6], 0.25).t == pytest.approx(corrected_t_test([0.1, 0.2, 0.3], 0.25).t)


def test_permutation_p_of_perfect_and_of_one_class():
    labels = np.repeat([1, 0], 20)
    assert permutation_p(scores(labels, labels * 0.9), permutations=999) == 1 / 1000
    assert math.isnan(permutation_p(scores([0, 0], [0.1, 0.2])))
    assert permutation_p(scores([1, 0, 1, 0], [0.4] * 4), permutations=99) == 1  # every permutation is as good


def test_the_permutation_test_keeps_its_level():
    generator = np.random.default_rng(0)
    labels = np.repeat([1, 0], [15, 25])
    p = [permutation_p(scores(labels, generator.random(40)), permutations=199, seed=i) for i in range(300)]
    assert 0.02 <= np.mean(np.array(p) <= 0.05) <= 0.085
    assert np.mean(p) == pytest.approx(0.5, abs=0.06)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, math.nan]) == pytest.approx([0.03, 0.06, 0.06, math.nan], nan_ok=True)
    assert holm([0.6, 0.7]) == [1, 1]


def test_comparison_of_two_runs():
    labels, (a, b) = binormal(0, 30, 45, distance=2, runs=2)
    first, second = scores(labels, a), scores(labels, np.where(np.arange(75) % 3 == 0, 0.5, b))
    found = compare_scores(first, second, resamples=500)
    for name in ("auc", "accuracy", "brier"):
        difference = (
            classification_metrics(labels, a)[name] - classification_metrics(labels, second.probabilities_RS[0])[name]
        )
        assert found["differences"][name]["value"] == pytest.approx(difference)
    assert found["differences"]["auc"]["value"] == pytest.approx(found["delong"]["difference"])
    intervals = bootstrap_differences(first, second, resamples=500)
    for name, interval in intervals.items():
        assert (found["differences"][name]["low"], found["differences"][name]["high"]) == interval, name
    right = [sample.decisions_S == labels for sample in (first, second)]
    assert found["mcnemar"] == dataclasses.asdict(mcnemar(*right))
    assert found["mcnemar"]["only_first"] != found["mcnemar"]["only_second"]
    assert found["n"] == 75
    assert found["folds"] is not None
    assert compare_scores(first, scores(labels, b, k=4), resamples=10)["folds"] is None


def test_fold_test_uses_every_fold_and_the_share_of_its_test_part():
    labels, (a, b) = binormal(1, 20, 30, runs=2)
    found = fold_test(scores(labels, a), scores(labels, b))
    differences = [
        classification_metrics(labels[fold::5], a[fold::5])["auc"]
        - classification_metrics(labels[fold::5], b[fold::5])["auc"]
        for fold in range(5)
    ]
    assert found.df == 4
    assert found.p == pytest.approx(corrected_t_test(differences, 0.25).p)


def test_one_fold_of_all_subjects_gives_its_difference_and_no_test():
    labels, (a, b) = binormal(1, 20, 30, runs=2)
    found = fold_test(scores(labels, a, k=1), scores(labels, b, k=1))
    expected = classification_metrics(labels, a)["auc"] - classification_metrics(labels, b)["auc"]
    assert (found.mean, found.df) == (pytest.approx(expected), 0)
    assert math.isnan(found.p)
