"""The names that people's files have, and which of several files is used."""

import argparse
from pathlib import Path

import pytest

from util.data.folder import CONTRASTS
from util.data.raw.layouts import find_brats, find_by_pattern, find_egd
from util.data.raw.new_patient import find_patient
from util.data.raw.roles import Names, given_names, names_option

KNOWN = {
    "t1": ["t1", "T1w", "t1n", "T1_pre", "T1-pre"],
    "t1ce": ["t1ce", "t1c", "t1gd", "T1-Gd", "T1_Gd", "ce-gadolinium_T1w", "CT1", "T1post", "T1_POST", "T1KM", "T1wCE"],
    "t2": ["t2", "T2w"],
    "flair": ["flair", "fla", "FLAIR", "t2f", "T2_FLAIR", "T2flair"],
    "seg": [
        "seg", "segm", "tumor_segmentation", "automated_approx_segm", "segmentations", "tumorMask", "tumour-mask",
        "GlistrBoost", "GlistrBoost_ManuallyCorrected", "lesion_seg", "final_seg", "flair_seg",
    ],
    "brain": [
        "bet_mask", "t1_bet_mask", "brain_mask", "brainmask", "mask_brain", "hdbet", "HD_BET_mask", "ss_mask",
        "T1w_desc-brain_mask", "brain_segmentation", "synthstrip_mask",
    ],
    "mask": ["mask", "t1_mask"],
    None: ["dwi", "t1_bias", "t1_bet", "adc", "seg_old_2", "swi"],
}  # fmt: skip


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def write(folder: Path, subject: str, *names: str, suffix=".nii.gz") -> None:
    touch(*(folder / subject / f"{subject}_{name}{suffix}" for name in (*CONTRASTS, *names)))


@pytest.mark.parametrize(("role", "name"), [(role, name) for role, names in KNOWN.items() for name in names])
def test_known_names(role, name):
    assert Names().role(name) == role
    if role:
        assert Names().split(f"W39_1998.09.19_{name}", "elsewhere") == ("W39_1998.09.19", role, name)


def test_a_folder_of_the_subjects_name_decides_where_the_name_ends():
    assert Names().split("A_t2_flair", "A_t2") == ("A_t2", "flair", "flair")
    assert Names().split("A_t2_flair", "A") == ("A", "flair", "t2_flair")


@pytest.mark.parametrize(
    ("names", "seg", "brain"),
    [
        (["mask"], "mask", None),
        (["mask", "seg"], "seg", "mask"),
        (["t1_bet_mask"], None, "t1_bet_mask"),
        (["t1_bet_mask", "t2_bet_mask", "tumor_segmentation"], "tumor_segmentation", "t1_bet_mask"),
        (["automated_approx_segm", "segm"], "segm", None),
        (["GlistrBoost", "GlistrBoost_ManuallyCorrected"], "GlistrBoost_ManuallyCorrected", None),
    ],
)
def test_masks_of_tumour_and_brain(tmp_path, names, seg, brain):
    write(tmp_path, "A", *names)
    for study in (find_brats(tmp_path)[0], find_patient(tmp_path / "A")):
        assert study.problem is None
        assert study.subject == "A"
        found = {role: path.name for role, path in study.files.items() if role not in CONTRASTS}
        expected = {"seg": seg, "brain": brain}
        assert found == {role: f"A_{name}.nii.gz" for role, name in expected.items() if name}
        assert len(study.unused) == len(names) - len(found)


def test_two_segmentations_of_which_none_comes_first(tmp_path):
    write(tmp_path, "A", "seg", "tumorMask")
    (study,) = find_brats(tmp_path)
    assert "both the seg of subject" in str(study.problem)
    assert "--names seg=NAME" in str(study.problem)
    (study,) = find_brats(tmp_path, given_names([("seg", "tumorMask")]))
    assert (study.problem, study.files["seg"].name) == (None, "A_tumorMask.nii.gz")
    with pytest.raises(ValueError, match=r"both the seg of .* --seg or --names"):
        find_patient(tmp_path / "A")


def test_names_of_ones_own(tmp_path):
    roles = {"t1": "PRE", "t2": "TSE", "t1ce": "T1POST_2", "flair": "DARKFLUID", "seg": "W39_lesion.7"}
    touch(*(tmp_path / "A" / f"A_{name}.nii.gz" for name in roles.values()))
    names = given_names([names_option(f"{role}={name}") for role, name in roles.items()])
    (study,) = find_brats(tmp_path, names)
    assert (study.subject, study.problem) == ("A", None)
    assert {role: path.name for role, path in study.files.items()} == {r: f"A_{n}.nii.gz" for r, n in roles.items()}
    assert find_patient(tmp_path / "A", names).files == study.files
    (study,) = find_by_pattern(tmp_path, "{subject}/{subject}_{contrast}.nii.gz", names)
    assert len(study.files) == 5
    (study,) = find_brats(tmp_path, given_names([names_option("seg=*lesion*"), *((r, n) for r, n in roles.items())]))
    assert study.files["seg"].name == "A_W39_lesion.7.nii.gz"


def test_none_leaves_a_mask_out(tmp_path):
    write(tmp_path, "A", "seg", "brain_mask")
    (study,) = find_brats(tmp_path, given_names([("seg", "none"), ("brain", "none")]))
    assert sorted(study.files) == sorted(CONTRASTS)
    assert len(study.unused) == 2


@pytest.mark.parametrize("text", ["t1ce", "t3=x", "t1=", "t1=a/b", "t1=T1.nii.gz"])
def test_names_are_checked(text):
    with pytest.raises(argparse.ArgumentTypeError, match=r"is not ROLE=NAME|without folder and suffix"):
        names_option(text)
    with pytest.raises(ValueError, match="X is given for t1 and for t2"):
        given_names([("t1", "X"), ("t2", "X")])


def test_what_macos_and_others_leave_behind_is_no_subject(tmp_path, caplog):
    caplog.set_level("INFO")
    write(tmp_path, "A")
    touch(tmp_path / "__MACOSX" / "A" / "._A_t1.nii.gz", tmp_path / "__MACOSX" / "A" / "A_t1.nii.gz")
    touch(tmp_path / "A" / "._A_t1.nii.gz", tmp_path / ".git" / "X_t1.nii.gz")
    touch(
        tmp_path / "MNI152_t1.nii.gz", tmp_path / "A" / "template_T1w.nii.gz", tmp_path / "masks" / "Z_brain_mask.nii"
    )
    touch(tmp_path / "A" / "A_adc.nrrd", tmp_path / "A" / "A_t2.nrrd", tmp_path / "A" / "notes.txt")
    (study,) = find_brats(tmp_path)
    assert (study.subject, study.problem) == ("A", None)
    assert "3 files below" in caplog.text
    assert "MNI152_t1.nii.gz, masks/Z_brain_mask.nii, A/template_T1w.nii.gz" in caplog.text
    assert "in a format that is not read, and are left out: A/A_t2.nrrd; convert" in caplog.text


def test_two_contrasts_are_a_study_that_lacks_some(tmp_path):
    write(tmp_path, "A")
    touch(tmp_path / "A" / "B_t1.nii.gz", tmp_path / "A" / "B_t2.nii.gz", tmp_path / "C" / "C_t1.nii.gz")
    assert [study.problem is None for study in find_brats(tmp_path)] == [True, False, False]


def test_other_formats_beside_each_other_are_duplicates(tmp_path):
    write(tmp_path, "A")
    touch(tmp_path / "A" / "A_t1.mgz", tmp_path / "A" / "A_t1.hdr")
    assert "A_t1.mgz and " in str(find_brats(tmp_path)[0].problem)


@pytest.mark.parametrize("pattern", ["**/{subject}_{contrast}.nii.gz", "{subject}/**/*_{contrast}.nii.gz"])
def test_patterns_with_any_folders(tmp_path, pattern):
    write(tmp_path, "A")
    write(tmp_path / "B" / "anat", "C")
    found = [(study.subject, study.problem) for study in find_by_pattern(tmp_path, pattern)]
    assert found == [("A", None), ("C" if pattern.startswith("**") else "B", None)]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("{subject}/{contrast}*.nii.gz", "would take T1ce for T1"),
        ("{subject}/a**/{contrast}.nii.gz", r"\*\* stands for whole folders"),
        ("/{subject}/{contrast}.nii.gz", "is relative to SRC"),
        ("{subject}/{contrast}.nii", r"it has A/A_flair\.nii\.gz, .* and 1 more; check the folder, and the --pattern"),
    ],
)
def test_patterns_that_match_nothing_are_explained(tmp_path, pattern, message):
    write(tmp_path, "A")
    with pytest.raises(ValueError, match=message) as found:
        find_by_pattern(tmp_path, pattern)
    assert "use `folder`" not in str(found.value)


def test_a_star_before_the_contrast_takes_the_longest_name(tmp_path):
    touch(*(tmp_path / "A" / f"x_{name}.nii.gz" for name in ("T1", "CT1", "T2", "T2_FLAIR")))
    (study,) = find_by_pattern(tmp_path, "{subject}/*{contrast}.nii.gz")
    assert (study.problem, study.files["t1ce"].name) == (None, "x_CT1.nii.gz")


def test_egd_with_other_names(tmp_path):
    for name in ("T1w", "T1KM", "T2w", "fla", "tumor_seg", "brain_mask"):
        touch(tmp_path / "EGD-1" / name / f"{name}.nii.gz")
    (study,) = find_egd(tmp_path)
    assert (study.problem, len(study.files)) == (None, 6)
