import numpy as np
import pytest
from score_cases import binormal, predictions, scores

from util.results import Prediction
from util.scores import arrange, check_paired


def test_arrays_follow_sorted_subjects_and_repeats():
    labels, both = binormal(0, 4, 6, runs=2)
    given = predictions(labels, both)
    found = arrange(given[::-1])
    assert found.subjects == [f"s{i:03d}" for i in range(10)]
    np.testing.assert_array_equal(found.labels_S, labels)
    np.testing.assert_allclose(found.probabilities_RS, both)
    assert found.folds_RS[1].tolist() == [5 + (i + 1) % 5 for i in range(10)]
    assert found.is_independent


def test_a_repeat_that_is_not_finished_is_left_out():
    labels, both = binormal(0, 4, 6, runs=2)
    unfinished = [p for p in predictions(labels, both) if p.fold != 7]
    assert arrange(unfinished).probabilities_RS.shape == (1, 10)
    assert len(arrange([p for p in unfinished if p.fold == 0]).subjects) == 2


def test_decisions_are_those_of_the_mean_over_repeats():
    found = scores([1, 0], [[0.9, 0.1], [0.3, 0.7]])
    assert found.decisions_S.tolist() == [True, False]
    assert scores([1, 0], [0.4, 0.1], threshold=0.3).decisions_S.tolist() == [True, False]


def test_patients_of_several_subjects_are_seen():
    assert not scores([1, 0, 1], [0.5] * 3, patients=["a", "a", "b"]).is_independent


def test_restriction_keeps_the_subjects_named():
    labels, one = binormal(0, 4, 6)
    part = scores(labels, one).restricted(["s001", "s009", "unknown"])
    assert part.subjects == ["s001", "s009"]
    assert part.labels_S.tolist() == [1, 0]
    np.testing.assert_allclose(part.probabilities_RS, one[:, [1, 9]])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no fold has finished"),
        ([("a", 0, 2, 0.5)], 'subject "a" has label 2'),
        ([("a", 0, 1, 1.5)], 'subject "a" has probability 1.5'),
        ([("a", 0, 1, float("nan"))], 'subject "a" has probability nan'),
        ([("a", 0, 1, 0.5), ("a", 1, 1, 0.6)], '"a" twice in one repeat'),
        ([("a", 0, 1, 0.5), ("a", 5, 0, 0.6, 1)], '"a" different labels'),
    ],
)
def test_bad_predictions_are_named(rows, message):
    with pytest.raises(ValueError, match=message):
        arrange([Prediction(*row) for row in rows])


def test_unequal_subject_sets_say_which_differ():
    a, b = scores([1, 0, 1], [0.5] * 3), scores([1, 0], [0.5] * 2)
    with pytest.raises(ValueError, match=r'1 subject\(s\) are only in A: "s002".*--common'):
        check_paired(a, b, ("A", "B"))
    with pytest.raises(ValueError, match=r"only in A"):
        check_paired(b, a, ("B", "A"))
    with pytest.raises(ValueError, match='disagree on the label of "s001"'):
        check_paired(b, scores([1, 1], [0.5] * 2), ("A", "B"))
    check_paired(a, a, ("A", "A"))
