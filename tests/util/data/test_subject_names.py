"""Which names a subject may have."""

import logging

import numpy as np
import pytest

from util.data.folder import CONTRASTS, find_subjects
from util.data.raw.layouts import find_brats
from util.data.subject_names import MAX_BYTES, name_problem


@pytest.mark.parametrize(
    "name",
    [
        "BraTS20_Training_001",
        "sub-01",
        "Patient 7",
        "Müller",
        "患者1",
        'A, "quoted"',
        "<b>&amp;",
        "A_$1$",
        "50%",
        "a..b",
    ],
)
def test_ordinary_and_odd_names_are_fine(name):
    assert name_problem(name) is None


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "is empty"),
        (" a", "starts or ends with a space"),
        ("../a", "could leave its folder"),
        ("a/b", "could leave its folder"),
        ("a\\b", "could leave its folder"),
        ("..", "could leave its folder"),
        ("a\nb", "line break"),
        ("a\0b", "cannot be printed"),
        ("a\x1b[2Jb", "cannot be printed"),
        ("a\u202eb", "cannot be printed"),  # turns the text round
        ("a\udcffb", "cannot be printed"),  # a file name that is no UTF-8
        ("=cmd", "evaluates as a formula"),
        ("+1", "evaluates as a formula"),
        ("-1", "evaluates as a formula"),
        ("@SUM(A1)", "evaluates as a formula"),
        ("x" * (MAX_BYTES + 1), "longer than 200 bytes"),
        ("患" * 100, "longer than 200 bytes"),
    ],
)
def test_dangerous_names_are_refused_in_one_short_printable_line(name, reason):
    problem = name_problem(name)
    assert reason in str(problem)
    assert str(problem).isprintable()
    assert len(str(problem)) < 400


@pytest.mark.parametrize("name", ["=1+1", "a\nb"])
def test_files_of_such_a_subject_are_refused(tmp_path, name):
    for contrast in CONTRASTS:
        (tmp_path / contrast).mkdir()
        np.save(tmp_path / contrast / f"{name}_{contrast}.npy", np.zeros((2, 2, 2), np.uint8))
    with pytest.raises(ValueError, match="rename the subject"):
        find_subjects(tmp_path)


def test_raw_study_of_such_a_name_is_that_studys_problem(tmp_path, caplog):
    for name in ("=A", "B"):
        for contrast in CONTRASTS:
            (tmp_path / f"{name}_{contrast}.nii.gz").touch()
    with caplog.at_level(logging.INFO):
        odd, good = sorted(find_brats(tmp_path), key=lambda study: study.subject, reverse=True)[::-1]
    assert "evaluates as a formula" in str(odd.problem)
    assert good.problem is None
