import numpy as np
import pytest

from tests.helpers.score_cases import binormal, predictions
from util.evaluation.predictions import Prediction, arrange, held_out_predictions, read_predictions, write_predictions

PREDICTIONS = [
    Prediction("=1+1", 0, 1, 0.9), Prediction("b", 0, 0, 0.2), Prediction("c", 0, 0, 0.6),
    Prediction("d", 1, 1, 0.7), Prediction("e", 1, 0, 0.1),
]  # fmt: skip


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
     ("subject,fold,label,probability\na,0,1,0.5\nb,0,x,0.5\n", 'line 3, column "label": "x" is not a whole number'),
     ("subject,fold,label,probability\na,0\n", "line 2")],
)  # fmt: skip
def test_bad_files_are_named(tmp_path, text, message):
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(ValueError, match=rf"p\.csv.*{message}"):
        read_predictions(tmp_path / "p.csv")


def test_a_file_that_excel_saved_again_reads_alike(tmp_path):
    text = "\ufeffSubject;Fold;Label;Probability;Repeat;Threshold;Patient\r\na;0;1;0,75;0;0,5;p1\r\n;;;;;;\r\n"
    (tmp_path / "p.csv").write_bytes(text.encode("utf-16"))
    assert read_predictions(tmp_path / "p.csv") == [Prediction("a", 0, 1, 0.75, 0, 0.5, "p1")]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match="is missing: no fold of that run has finished"):
        read_predictions(tmp_path / "p.csv")


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


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no fold has finished"),
        ([("a", 0, 2, 0.5)], 'subject "a" has label 2'),
        ([("a", 0, 1, 1.5)], 'subject "a" has probability 1.5'),
        ([("a", 0, 1, -0.5)], 'subject "a" has probability -0.5'),
        ([("a", 0, 1, float("nan"))], 'subject "a" has probability nan'),
        ([("a", 0, 1, 0.5), ("a", 1, 1, 0.6)], '"a" twice in one repeat'),
        ([("a", 0, 1, 0.5), ("a", 5, 0, 0.6, 1)], '"a" different labels'),
    ],
)
def test_bad_predictions_are_named(rows, message):
    with pytest.raises(ValueError, match=message):
        arrange([Prediction(*row) for row in rows])


def test_recorded_predictions(tmp_path):
    assert held_out_predictions(tmp_path) == {}
    (tmp_path / "predictions.csv").write_text("subject,fold,label,probability\nA,1,0,0.25\n")
    assert held_out_predictions(tmp_path) == {"A": Prediction("A", 1, 0, 0.25)}
