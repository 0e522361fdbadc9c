"""A new patient's files are found by name in any layout; files that cannot be one patient's scans are refused."""

import pytest

from tests.helpers.raw_studies import brain_volume, write_nifti, write_study
from util.data.folder import CONTRASTS
from util.data.raw.new_patient import find_patient, missing_contrasts, patient_from_files

EGD = {"t1": "1_T1/NIFTI/T1", "t1ce": "2_T1GD/NIFTI/T1GD", "t2": "3_T2/NIFTI/T2", "flair": "4_FLAIR/NIFTI/FLAIR"}
BRATS_2023 = {"t1": "P-000-t1n", "t1ce": "P-000-t1c", "t2": "P-000-t2w", "flair": "P-000-t2f"}


def nifti(path):
    return write_nifti(path, brain_volume())


@pytest.mark.parametrize("names", [EGD, BRATS_2023, {c: f"scan 3.{c.upper()}" for c in CONTRASTS}])
def test_every_layout_of_one_patient(tmp_path, names):
    for name in names.values():
        nifti(tmp_path / "Patient A" / f"{name}.nii.gz")
    nifti(tmp_path / "Patient A" / "localizer.nii.gz")
    study = find_patient(tmp_path / "Patient A")
    assert study.subject == "Patient A"
    assert {c: str(p.relative_to(tmp_path / "Patient A")) for c, p in study.files.items()} == {
        c: f"{name}.nii.gz" for c, name in names.items()
    }


def test_segmentation_and_some_contrasts_are_enough(tmp_path):
    write_study(tmp_path, "A")
    for contrast in ("t1", "t1ce"):
        (tmp_path / "A" / f"A_{contrast}.nii.gz").unlink()
    study = find_patient(tmp_path / "A")
    assert set(study.files) == {"t2", "flair", "seg"}
    assert missing_contrasts(study, CONTRASTS) == ["t1", "t1ce"]


@pytest.mark.parametrize("how", ["suffix", "magic", "DICOMDIR"])
def test_a_dicom_folder_says_how_to_convert(tmp_path, how):
    name = {"suffix": "slice1.dcm", "magic": "IM000001", "DICOMDIR": "DICOMDIR"}[how]
    (tmp_path / "series").mkdir()
    (tmp_path / "series" / name).write_bytes(bytes(128) + (b"DICM" if how == "magic" else b"    "))
    with pytest.raises(ValueError, match=r"is DICOM; convert the folder first: dcm2niix .*series"):
        find_patient(tmp_path / "series")
    if how != "DICOMDIR":
        with pytest.raises(ValueError, match="is DICOM"):
            patient_from_files({"t1": tmp_path / "series" / name})
    with pytest.raises(ValueError, match="is DICOM"):
        patient_from_files({"t1": tmp_path / "series"})


def test_what_is_no_single_patient(tmp_path):
    with pytest.raises(ValueError, match="nowhere is not a folder"):
        find_patient(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty has no file named like .*T2\.nii\.gz"):
        find_patient(tmp_path / "empty")
    write_study(tmp_path / "two", "A")
    write_study(tmp_path / "two", "B")
    with pytest.raises(ValueError, match=r"A_flair\.nii\.gz and .*B_flair\.nii\.gz are both the flair"):
        find_patient(tmp_path / "two")


def test_named_files(tmp_path):
    t1, flair = nifti(tmp_path / "Doe_t1.nii.gz"), nifti(tmp_path / "other.nii")
    study = patient_from_files({"t1": t1, "t2": None, "flair": flair})
    assert (study.subject, study.files) == ("Doe", {"t1": t1, "flair": flair})
    assert patient_from_files({"flair": flair}).subject == "other"
    assert patient_from_files({"t1": nifti(tmp_path / "Roe" / "T1.nii.gz")}).subject == "Roe"
    with pytest.raises(ValueError, match=r"--t2 .*gone\.nii is missing"):
        patient_from_files({"t1": t1, "t2": tmp_path / "gone.nii"})
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match=r"--t2 .*folder is a folder; give one NIfTI"):
        patient_from_files({"t1": t1, "t2": tmp_path / "folder"})


@pytest.mark.parametrize("name", ["=cmd", "@x", "-1", "a\nb"])
def test_names_that_are_formulas_or_hidden_files_are_refused(tmp_path, name):
    nifti(tmp_path / name / "t1.nii.gz")
    with pytest.raises(ValueError, match="rename the folder or file"):
        find_patient(tmp_path / name)
