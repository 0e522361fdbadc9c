"""Unsuitable scans give a warning, good ones give none."""

import nibabel
import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from tests.helpers.raw_studies import AFFINE, brain_volume, write_nifti, write_study
from util.data.phantom.study import make_phantom
from util.data.prepare.study import Settings, prepare_study
from util.data.raw.nifti import read_image
from util.data.raw.scan_warnings import cut_ends, fraction_outside, header_warnings, same_images, scan_warnings

ISOTROPIC = np.ones(3) * 2.0


@pytest.fixture(scope="module")
def phantom():
    """(images, brain) at 2 mm, (X, Y, Z)."""
    images = list(make_phantom("egd", 0, seed=3, spacing=2.0).images.values())
    return images, np.any([image != 0 for image in images], axis=0)


def with_head(images, brain):
    """The same brain within dark bone (6 mm) and a bright scalp (6 mm)."""
    away_mm = distance_transform_edt(~brain, sampling=ISOTROPIC)
    bone, scalp = (away_mm > 0) & (away_mm <= 6), (away_mm > 6) & (away_mm <= 12)
    heads = [image + np.where(bone, 0.05, 0) * image.max() + np.where(scalp, 0.7, 0) * image.max() for image in images]
    return heads, np.any([head != 0 for head in heads], axis=0)


def test_a_stripped_brain_gives_no_warning(phantom):
    images, brain = phantom
    assert scan_warnings(brain, images, ISOTROPIC) == []


def test_scalp_around_the_brain_gives_a_warning(phantom):
    images, brain = phantom
    heads, head = with_head(images, brain)
    measured = fraction_outside(head, heads, ISOTROPIC)
    scalp = (heads[0] > 0.6 * images[0].max()) & ~brain
    assert measured == pytest.approx(scalp.sum() / (scalp | brain).sum(), abs=0.08)
    assert any("outside the brain: the skull may not have been removed" in warning
               for warning in scan_warnings(head, heads, ISOTROPIC))  # fmt: skip
    assert fraction_outside(brain, heads, ISOTROPIC) < 0.01  # a brain mask removes it


def test_a_volume_too_thin_to_judge_is_not_judged():
    brain = np.zeros((8, 8, 8), bool)
    brain[4, 4, :] = True
    assert fraction_outside(brain, [brain * 1.0], ISOTROPIC) == 0
    assert fraction_outside(np.zeros_like(brain), [brain * 1.0], ISOTROPIC) == 0


@pytest.mark.parametrize(
    ("axis", "keep", "end"),
    [(0, slice(30, None), "left"), (0, slice(None, -30), "right"), (1, slice(30, None), "back"),
     (1, slice(None, -40), "front"), (2, slice(25, None), "lower"), (2, slice(None, -30), "upper")],
)  # fmt: skip
def test_a_cut_brain_names_the_end(phantom, axis, keep, end):
    _, brain = phantom
    cut = brain[tuple(keep if other == axis else slice(None) for other in range(3))]
    assert list(cut_ends(cut)) == [end]


def test_thick_slices(phantom):
    images, brain = phantom
    thick = [image[:, :, ::3] for image in images]
    warnings = scan_warnings(brain[:, :, ::3], thick, np.array([1.0, 1.0, 6.5]))
    assert warnings == ["voxels of 1 x 1 x 6.5 mm: slices are thick, and values between them are interpolated"]
    assert not [d for d in scan_warnings(brain, images, np.array([1.0, 1.0, 2.0])) if "thick" in d]


def image_with(qform, sform):
    image = nibabel.Nifti1Image(brain_volume(), AFFINE)
    image.set_qform(qform, code=1)
    image.set_sform(sform, code=1)
    return image


def test_qform_and_sform_that_disagree_say_by_how_much_and_which_is_used(tmp_path):
    moved, sheared = AFFINE.copy(), AFFINE.copy()
    moved[0, 3] += 7
    sheared[0, 1] = 0.4  # not orthogonal, which a qform cannot hold: 0.4 mm in x along 23 voxels in y
    assert header_warnings(image_with(AFFINE, AFFINE)) == []
    assert "up to 7.0 mm apart; the sform is used" in header_warnings(image_with(AFFINE, moved))[0]
    assert "mm apart; the sform is used" in header_warnings(image_with(sheared, sheared))[0]
    nibabel.save(image_with(AFFINE, moved), tmp_path / "a.nii.gz")
    volume = read_image(tmp_path / "a.nii.gz")
    np.testing.assert_allclose(volume.stored_affine, moved, atol=1e-5)
    assert "up to 7.0 mm" in volume.warnings[0]


def test_warnings_of_the_preparation_name_the_contrast(tmp_path):
    study = write_study(tmp_path, "A", seg=False)
    moved = AFFINE.copy()
    moved[1, 3] += 3
    nibabel.save(image_with(moved, AFFINE), study.files["t2"])
    for seed, contrast in enumerate(("t1", "t1ce", "flair"), 1):
        write_nifti(study.files[contrast], brain_volume(seed), AFFINE)
    assert prepare_study(study, Settings(size=(16, 16, 16))).warnings == [
        "t2: qform and sform of its header put voxels up to 3.0 mm apart; the sform is used"
    ]


def test_z_scored_images_raise_no_doubt(phantom):
    images, brain = phantom
    scored = [np.where(brain, (image - image[brain].mean()) / image[brain].std(), 0) for image in images]
    assert scan_warnings(brain, scored, ISOTROPIC) == []
    heads, head = with_head(images, brain)
    scored = [np.where(head, (image - image[head].mean()) / image[head].std(), 0) for image in heads]
    assert any("skull" in warning for warning in scan_warnings(head, scored, ISOTROPIC))


def test_one_cause_is_one_line(phantom):
    images, brain = phantom
    cut = (slice(30, -30), slice(30, -30), slice(25, None))
    (warning,) = scan_warnings(brain[cut], [image[cut] for image in images], ISOTROPIC)
    assert "left end" in warning
    assert "front end" in warning


def test_the_same_image_twice_is_doubted(phantom):
    images, brain = phantom
    named = dict(zip(("t1", "t2", "t1ce", "flair"), images, strict=True))
    assert same_images(brain, named) == []
    (warning,) = same_images(brain, {**named, "t2": named["t1"] * 3 + 5})
    assert warning.startswith("t1 and t2 are the same image")


def test_a_qform_without_a_rotation_does_not_hide_the_sform():
    image = image_with(AFFINE, AFFINE)
    image.header["quatern_b"] = 5.0  # no unit quaternion
    assert header_warnings(image) == []
