"""Doubts about a cohort reach the console by kind, and a table by subject."""

import csv
import logging

import numpy as np

import prepare_data
from tests.helpers.raw_studies import SHAPE, brain_volume, write_nifti, write_study
from util.data.prepare.summary import by_kind, shown


def prepare(*words) -> int:
    return prepare_data.main([str(word) for word in words])


def test_warnings_that_differ_in_numbers_or_contrast_are_one_kind():
    warnings = {
        "B": ["t1: voxels of 1 x 1 x 6.5 mm", "skull"],
        "A": ["t1ce: voxels of 2 x 2 x 7 mm", "flair: voxels of 2 x 2 x 7 mm"],
        "C": [],
    }
    assert by_kind(warnings) == [("t1ce: voxels of 2 x 2 x 7 mm", ["A", "B"]), ("skull", ["B"])]
    assert shown(list("ABCDE")) == "A, B, C and 2 more"


def test_console_and_table(tmp_path, capsys):
    for seed, subject in enumerate("ABCDE"):
        write_study(tmp_path / "raw", subject, seg=subject == "A", seed=seed)
        if subject != "A":
            half = brain_volume()
            half[:, :, 9:] = 0
            write_nifti(tmp_path / "raw" / subject / f"{subject}_t2.nii.gz", half)
    write_nifti(tmp_path / "raw" / "B" / "B_tumour_v2.nii.gz", np.zeros(SHAPE, np.uint8))
    assert prepare("brats", tmp_path / "raw", tmp_path / "out", "--size", 16) == 0
    said = capsys.readouterr().err
    assert "1 of 5 subjects have a mask of the tumour" in said
    assert "1 files look like masks and are not used: B_tumour_v2.nii.gz" in said
    assert "warning for 4 of 5 (B, C, D and 1 more): t2 is 0 in" in said
    with (tmp_path / "out" / "warnings.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["subject"] for row in rows] == list("BCDE")
    assert all(row["warning"].startswith("t2 is 0 in") for row in rows)
    assert prepare("brats", tmp_path / "raw", tmp_path / "out", "--size", 16) == 0
    assert "warning for 4 of 5" in capsys.readouterr().err  # a second call says it again
    for subject in "BCDE":
        write_study(tmp_path / "raw", subject, seg=False)
    prepare("brats", tmp_path / "raw", tmp_path / "out", "--size", 16, "--overwrite")
    assert not (tmp_path / "out" / "warnings.csv").exists()
    logging.getLogger().handlers.clear()
