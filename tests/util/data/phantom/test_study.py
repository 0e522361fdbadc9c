"""Phantom studies: subject i depends on seed, layout and i alone; labels are consistent."""

from typing import get_args

import nibabel
import numpy as np
import pytest

from util.data.folder import LABEL_SHEET
from util.data.labels import LabelType, read_labels
from util.data.phantom.study import CYCLE, make_phantom, study_files, subject_name, write_egd_labels, write_phantom
from util.data.phantom.tumour import TumourClass
from util.data.raw.layouts import find_brats, find_egd

SPACING = 4.0


def test_same_seed_same_study_to_the_byte(tmp_path):
    for folder in ("one", "two"):
        write_phantom(make_phantom("brats", 2, seed=7, spacing=SPACING), "brats", 2, tmp_path / folder)
    for first, second in zip(
        study_files("brats", 2, tmp_path / "one").values(),
        study_files("brats", 2, tmp_path / "two").values(),
        strict=True,
    ):
        assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("other", [("brats", 2, 8), ("egd", 2, 7), ("brats", 12, 7)])
def test_seed_layout_and_index_each_matter(other):
    layout, index, seed = other
    first = make_phantom("brats", 2, seed=7, spacing=SPACING)
    second = make_phantom(layout, index, seed=seed, spacing=SPACING)
    assert first.kind == second.kind
    assert not np.array_equal(first.images["t1"], second.images["t1"])


def test_layouts_are_found_again(tmp_path):
    phantom = make_phantom("egd", 0, seed=0, spacing=SPACING)
    write_phantom(phantom, "egd", 0, tmp_path / "egd")
    write_phantom(make_phantom("brats", 0, seed=0, spacing=SPACING), "brats", 0, tmp_path / "brats")
    (egd,), (brats,) = find_egd(tmp_path / "egd"), find_brats(tmp_path / "brats")
    assert (egd.subject, egd.problem) == ("PhantomEGD-0001", None)
    assert (brats.subject, brats.problem) == ("PhantomBraTS-0001", None)
    assert egd.files["t1ce"].relative_to(tmp_path).as_posix() == "egd/PhantomEGD-0001/2_T1GD/NIFTI/T1GD.nii.gz"
    assert brats.files["t1ce"].relative_to(tmp_path).as_posix() == (
        "brats/PhantomBraTS-0001/PhantomBraTS-0001_t1ce.nii.gz"
    )
    for role, path in egd.files.items():
        image = nibabel.Nifti1Image.from_filename(path)
        np.testing.assert_array_equal(image.affine, phantom.affine)
        np.testing.assert_array_equal(np.asarray(image.dataobj), {**phantom.images, "seg": phantom.seg}[role])


def test_label_sheet_of_a_cohort(tmp_path):
    write_egd_labels(tmp_path, 200, seed=0)
    names = [subject_name("egd", index) for index in range(200)]
    idh, codeletion, grade = (read_labels(tmp_path / LABEL_SHEET, kind, names) for kind in get_args(LabelType))
    for index, name in enumerate(names):
        kind = CYCLE[index % len(CYCLE)]
        assert idh[name] in (-1, int(kind != "wildtype"))
        assert codeletion[name] in (-1, int(kind == "codeleted"))
        assert not (idh[name] == 0 and codeletion[name] == 1)
    unknown = [sum(value == -1 for value in labels.values()) for labels in (idh, codeletion, grade)]
    assert 5 < unknown[0] < unknown[1] < 100
    assert unknown[2] > 0


@pytest.mark.parametrize("count", [40, 41])
def test_forty_subjects_are_enough_for_five_folds(tmp_path, count):
    write_egd_labels(tmp_path, count, seed=0)
    idh = list(read_labels(tmp_path / LABEL_SHEET, "IDH").values())
    codeletion = list(read_labels(tmp_path / LABEL_SHEET, "1p19q").values())
    assert min(idh.count(0), idh.count(1)) >= 15
    assert min(codeletion.count(0), codeletion.count(1)) >= 5


def test_sheet_says_what_the_study_is(tmp_path):
    write_egd_labels(tmp_path, 3, seed=5)
    phantom = make_phantom("egd", 2, seed=5, spacing=SPACING)
    sheet = tmp_path / LABEL_SHEET
    assert read_labels(sheet, "IDH")[phantom.subject] == phantom.labels["IDH"]
    assert read_labels(sheet, "1p19q")[phantom.subject] == phantom.labels["1p19q"]


@pytest.mark.parametrize("spacing", [0.1, 10.0])
def test_spacing_is_checked(spacing):
    with pytest.raises(ValueError, match="--spacing"):
        make_phantom("egd", 0, seed=0, spacing=spacing)


def as_kind(monkeypatch, kind, strength):
    """Subject 2 of seed 7, whatever its turn in the cycle, as a tumour of `kind`."""
    monkeypatch.setattr("util.data.phantom.study._kind", lambda index: kind)
    return make_phantom("egd", 2, seed=7, spacing=SPACING, marker_strength=strength)


def same_study(first, second):
    return np.array_equal(first.seg, second.seg) and all(
        np.array_equal(first.images[contrast], second.images[contrast]) for contrast in first.images
    )


def test_without_markers_a_study_is_the_same_whatever_its_class(monkeypatch):
    wildtype, *others = (as_kind(monkeypatch, kind, 0.0) for kind in get_args(TumourClass))
    assert wildtype.labels != others[0].labels
    assert all(same_study(wildtype, other) for other in others)


def test_weak_markers_show_the_class_and_full_ones_are_the_default(monkeypatch):
    wildtype, *others = (as_kind(monkeypatch, kind, 0.3) for kind in get_args(TumourClass))
    assert not any(same_study(wildtype, other) for other in others)
    plain = make_phantom("egd", 2, seed=7, spacing=SPACING)
    assert same_study(plain, make_phantom("egd", 2, seed=7, spacing=SPACING, marker_strength=1))


@pytest.mark.parametrize("strength", [-0.1, 1.5, float("nan")])
def test_marker_strength_is_checked(strength):
    with pytest.raises(ValueError, match="--marker_strength"):
        make_phantom("egd", 0, seed=0, spacing=SPACING, marker_strength=strength)
