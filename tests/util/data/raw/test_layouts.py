"""Which file is which contrast of which subject, in every layout."""

import logging
from pathlib import Path

import pytest

from util.data.folder import CONTRASTS
from util.data.raw.layouts import find_brats, find_by_pattern, find_egd

EGD = {
    "t1": "1_T1/NIFTI/T1",
    "t1ce": "2_T1GD/NIFTI/T1GD",
    "t2": "3_T2/NIFTI/T2",
    "flair": "4_FLAIR/NIFTI/FLAIR",
    "seg": "5_MASK/NIFTI/MASK",
}
NAMES_2023 = {"t1": "t1n", "t1ce": "t1c", "t2": "t2w", "flair": "t2f", "seg": "seg"}


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def test_brats_until_2021_and_from_2023(tmp_path):
    expected = {}
    for role, newer in NAMES_2023.items():
        touch(tmp_path / "HGG" / "BraTS_001_t1" / f"BraTS_001_t1_{role}.nii.gz")
        expected[role] = touch(tmp_path / "BraTS-GLI-00000-000" / f"BraTS-GLI-00000-000-{newer}.nii")
    studies = find_brats(tmp_path)
    assert [study.subject for study in studies] == ["BraTS-GLI-00000-000", "BraTS_001_t1"]
    assert [study.problem for study in studies] == [None, None]
    assert studies[0].files == expected
    assert studies[1].files["t1ce"].name == "BraTS_001_t1_t1ce.nii.gz"


@pytest.mark.parametrize("root", [".", "SUBJECTS"])
def test_egd(tmp_path, root):
    expected = {role: touch(tmp_path / root / "EGD-0001" / f"{file}.nii.gz") for role, file in EGD.items()}
    expected["brain"] = touch(tmp_path / root / "EGD-0001" / "6_BRAIN" / "NIFTI" / "BRAIN_MASK.nii.gz")
    (study,) = find_egd(tmp_path)
    assert study.subject == "EGD-0001"
    assert study.files == expected
    assert study.problem is None


def test_pattern(tmp_path):
    for contrast in CONTRASTS:
        touch(tmp_path / "sub-A_1" / "ses-2" / "anat" / f"sub-A_1_{contrast.upper()}.nii.gz")
        touch(tmp_path / "sub-B" / "ses-1" / "anat" / f"sub-C_{contrast}.nii.gz")
    (study,) = find_by_pattern(tmp_path, "sub-{subject}/ses-*/anat/sub-{subject}_{contrast}.nii.gz")
    assert study.subject == "A_1"
    assert sorted(study.files) == sorted(CONTRASTS)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("{subject}.nii", r"has no \{contrast\}"),
        ("{contrast}.nii", r"has no \{subject\}"),
        ("{subject}_{contrast}_{session}.nii", r"\{session\} is unknown"),
    ],
)
def test_bad_pattern_is_explained(tmp_path, pattern, message):
    with pytest.raises(ValueError, match=message):
        find_by_pattern(tmp_path, pattern)


def test_missing_contrast_is_the_studys_problem(tmp_path):
    for contrast in ("t1", "t2", "flair"):
        touch(tmp_path / "A" / f"A_{contrast}.nii.gz")
    for contrast in CONTRASTS:
        touch(tmp_path / "B" / f"B_{contrast}.nii.gz")
    first, second = find_brats(tmp_path)
    assert "no t1ce beside" in str(first.problem)
    assert second.problem is None


def test_duplicate_subject_is_the_studys_problem(tmp_path):
    for contrast in CONTRASTS:
        touch(tmp_path / "one" / f"A_{contrast}.nii.gz")
    touch(tmp_path / "two" / "A_t2.nii.gz")
    (study,) = find_brats(tmp_path)
    assert str(study.problem).startswith("duplicate")
    assert "one/A_t2.nii.gz" in str(study.problem)
    assert "two/A_t2.nii.gz" in str(study.problem)


def test_unknown_files_are_counted_in_the_log(tmp_path, caplog):
    touch(tmp_path / "A" / "A_t1.nii.gz")
    touch(tmp_path / "A" / "A_dwi.nii.gz")
    with caplog.at_level(logging.INFO):
        find_brats(tmp_path)
    assert "1 files below" in caplog.text
    assert "A_dwi.nii.gz" in caplog.text


def test_empty_and_missing_source(tmp_path):
    with pytest.raises(ValueError, match=r"has no files like NAME/NAME_t1\.nii\.gz"):
        find_brats(tmp_path)
    for find in (find_brats, find_egd, lambda path: find_by_pattern(path, "{subject}_{contrast}.nii")):
        with pytest.raises(ValueError, match="is not a folder"):
            find(tmp_path / "nowhere")
