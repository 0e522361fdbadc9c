"""The command line of prepare_data.py, from phantom studies to a folder that loads, and its exit status."""

import logging
import shutil
from pathlib import Path

import numpy as np
import openpyxl
import pytest

import prepare_data
from tests.helpers.raw_studies import SHAPE, write_nifti, write_study
from util.data.dataset import PreparedVolumes
from util.data.folder import LABEL_SHEET
from util.data.labels import read_labels


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory) -> Path:
    """Two phantoms per layout at 4 mm."""
    root = tmp_path_factory.mktemp("phantoms")
    assert prepare_data.main(["phantom", str(root), "--subjects", "2", "--seed", "1", "--spacing", "4"]) == 0
    return root


def prepare(*words) -> int:
    return prepare_data.main([str(word) for word in words])


def test_phantom_brats_to_dataset(phantoms, tmp_path):
    assert prepare("brats", phantoms / "brats", tmp_path, "--size", 32, "--workers", 2) == 0
    data = PreparedVolumes(tmp_path)
    assert data.subjects == ["PhantomBraTS-0001", "PhantomBraTS-0002"]
    assert data.size == (32, 32, 32)
    assert (tmp_path / "qc" / "PhantomBraTS-0001.png").read_bytes().startswith(b"\x89PNG")
    volume, _ = data[0]
    assert volume.isfinite().all()
    segmentation = data.segmentation("PhantomBraTS-0001")
    assert segmentation is not None
    assert segmentation.any()


def test_phantom_egd_to_dataset_with_labels(phantoms, tmp_path):
    sheet = phantoms / "egd" / LABEL_SHEET
    assert prepare("egd", phantoms / "egd", tmp_path, "--labels", sheet, "--size", 24, 32, 40) == 0
    labels = read_labels(tmp_path / LABEL_SHEET, "IDH")
    data = PreparedVolumes(tmp_path, labels=labels)
    assert data.size == (24, 32, 40)
    assert [data[i][1] for i in range(2)] == [labels[subject] for subject in data.subjects]


def test_one_layout_only(tmp_path):
    assert prepare("phantom", tmp_path, "--subjects", 1, "--spacing", 4, "--layout", "egd") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["egd"]


def test_marker_strength_reaches_the_studies(phantoms, tmp_path):
    options = ("--subjects", 1, "--seed", 1, "--spacing", 4, "--layout", "brats")
    assert prepare("phantom", tmp_path, *options, "--marker_strength", 0.4) == 0
    name = "brats/PhantomBraTS-0001/PhantomBraTS-0001_t1ce.nii.gz"
    assert (tmp_path / name).read_bytes() != (phantoms / name).read_bytes()


def test_folder_with_a_pattern(tmp_path):
    study = write_study(tmp_path / "raw", "A")
    for role, path in study.files.items():
        (tmp_path / "other" / "A" / "anat").mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / "other" / "A" / "anat" / f"{role}.nii.gz")
    assert (
        prepare(
            "folder",
            tmp_path / "other",
            tmp_path / "out",
            "--size",
            16,
            "--pattern",
            "{subject}/anat/{contrast}.nii.gz",
        )
        == 0
    )
    assert PreparedVolumes(tmp_path / "out").subjects == ["A"]


def test_bad_subject_gives_exit_code_one_and_a_list(tmp_path, capsys):
    for seed, subject in enumerate("AB"):
        write_study(tmp_path / "raw", subject, seed=seed)
    write_nifti(tmp_path / "raw" / "B" / "B_flair.nii.gz", np.full(SHAPE, np.nan, np.float32))
    assert prepare("brats", tmp_path / "raw", tmp_path / "out", "--size", 16) == 1
    printed = capsys.readouterr().err
    assert "1 of 2 subjects are prepared" in printed
    assert "failed: B: " in printed
    assert "B_flair.nii.gz has 8640 NaN or Inf voxels" in printed
    assert PreparedVolumes(tmp_path / "out").subjects == ["A"]


def write_sheet(path: Path, *rows: list) -> Path:
    workbook = openpyxl.Workbook()
    for row in [["Subject", "IDH", "1p19q", "Grade"], *rows]:
        workbook.worksheets[0].append(row)
    workbook.save(path)
    return path


def test_egd_subject_without_a_row_fails_alone(phantoms, tmp_path, capsys):
    sheet = write_sheet(tmp_path / "sheet.xlsx", ["PhantomEGD-0001", 1, -1, 3])
    assert prepare("egd", phantoms / "egd", tmp_path / "out", "--labels", sheet, "--size", 16) == 1
    assert "sheet.xlsx has no row for it" in capsys.readouterr().err
    assert PreparedVolumes(tmp_path / "out").subjects == ["PhantomEGD-0001"]


def test_egd_sheet_is_checked_before_anything_is_written(phantoms, tmp_path):
    sheet = write_sheet(tmp_path / "sheet.xlsx", ["PhantomEGD-0001", 1, "codeleted", 3])
    with pytest.raises(ValueError, match=r'sheet\.xlsx, row 2, column 1p19q: "codeleted"'):
        prepare("egd", phantoms / "egd", tmp_path / "out", "--labels", sheet)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--size", 16, 16], "--size has 2 numbers"),
        (["--size", 4], "--size"),
        (["--percentiles", 90, 10], "--percentiles"),
    ],
)
def test_flags_are_checked_and_nothing_is_written(tmp_path, flags, message):
    write_study(tmp_path / "raw", "A")
    with pytest.raises(ValueError, match=message):
        prepare("brats", tmp_path / "raw", tmp_path / "out", *flags)
    assert not (tmp_path / "out").exists()


def test_second_run_reports_that_nothing_is_left_to_do(tmp_path, capsys):
    write_study(tmp_path / "raw", "A")
    command = ("brats", tmp_path / "raw", tmp_path / "out", "--size", 16)
    assert prepare(*command) == 0
    capsys.readouterr()
    assert prepare(*command) == 0
    assert "1 of 1 subjects are already prepared" in capsys.readouterr().err
    with pytest.raises(ValueError, match="use --overwrite"):
        prepare(*command[:-1], 20)
    assert prepare(*command[:-1], 20, "--overwrite") == 0
    assert PreparedVolumes(tmp_path / "out").size == (20, 20, 20)


@pytest.fixture(autouse=True)
def restore_logging():
    """setup_logging() points the root logger at this test's standard error."""
    yield
    logging.getLogger().handlers.clear()
