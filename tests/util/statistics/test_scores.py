import dataclasses

import numpy as np
import pytest

from tests.helpers.score_cases import binormal, scores
from util.statistics.scores import check_paired


def test_decisions_are_those_of_the_mean_over_repeats():
    found = scores([1, 0], [[0.9, 0.1], [0.3, 0.7]])
    assert found.decisions_S.tolist() == [True, False]
    assert scores([1, 0], [0.4, 0.1], threshold=0.3).decisions_S.tolist() == [True, False]
    assert scores([1, 0], [0.5, 0.49]).decisions_S.tolist() == [True, False]  # at the threshold: class 1


def test_thresholds_are_averaged_over_repeats_too():
    found = scores([1, 0, 0], [[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]])
    found = dataclasses.replace(found, thresholds_RS=np.array([[0.2, 0.9, 0.6], [0.4, 0.3, 0.3]]))
    assert found.decisions_S.tolist() == [True, False, True]  # means 0.3, 0.6, 0.45


def test_patients_with_several_subjects_are_detected():
    assert not scores([1, 0, 1], [0.5] * 3, patients=["a", "a", "b"]).is_independent


def test_restriction_keeps_the_subjects_named():
    labels, one = binormal(0, 4, 6)
    part = scores(labels, one).restricted(["s001", "s009", "unknown"])
    assert part.subjects == ["s001", "s009"]
    assert part.labels_S.tolist() == [1, 0]
    np.testing.assert_allclose(part.probabilities_RS, one[:, [1, 9]])


def test_unequal_subject_sets_say_which_differ():
    a, b = scores([1, 0, 1], [0.5] * 3), scores([1, 0], [0.5] * 2)
    with pytest.raises(ValueError, match=r'1 subject\(s\) are only in A: "s002".*--common'):
        check_paired(a, b, ("A", "B"))
    with pytest.raises(ValueError, match=r"only in A"):
        check_paired(b, a, ("B", "A"))
    with pytest.raises(ValueError, match='A and B disagree on the label of "s001": not the same task'):
        check_paired(b, scores([1, 1], [0.5] * 2), ("A", "B"))
    check_paired(a, a, ("A", "A"))


def test_three_names_are_quoted_and_the_others_counted():
    few, many = scores([1, 0], [0.5] * 2), scores([1, 0] * 6, [0.5] * 12)
    with pytest.raises(ValueError, match=r'10 subject.*A: "s002", "s003", "s004" and 7 more; compare'):
        check_paired(many, few, ("A", "B"))
    with pytest.raises(ValueError, match=r'3 subject.*A: "s002", "s003", "s004"; compare'):
        check_paired(scores([1, 0, 1, 0, 1], [0.5] * 5), few, ("A", "B"))
