"""Preparing one study: every voxel keeps its position in the patient, faulty studies are refused."""

import numpy as np
import pytest
from scipy.ndimage import binary_erosion

from tests.helpers.raw_studies import AFFINE, SHAPE, brain_volume, write_nifti, write_study
from util.data.folder import CONTRASTS
from util.data.prepare.study import Settings, prepare_study

SMALL = Settings(size=(16, 20, 24))


def test_shapes_types_and_background(tmp_path):
    prepared = prepare_study(write_study(tmp_path, "A"), SMALL)
    assert list(prepared.volumes) == list(CONTRASTS)
    for volume in prepared.volumes.values():
        assert volume.shape == (16, 20, 24)
        assert volume.dtype == np.uint8
        assert volume.flags.c_contiguous
        assert volume.min() == 0
        assert volume.max() == 255
    backgrounds = [volume == 0 for volume in prepared.volumes.values()]
    assert all(np.array_equal(backgrounds[0], other) for other in backgrounds)  # brain voxels are at least 1
    assert prepared.segmentation is not None
    assert set(np.unique(prepared.segmentation)) == {0, 2, 4}
    assert not prepared.segmentation[backgrounds[0]].any()
    assert prepared.warnings == []


@pytest.mark.parametrize("permutation", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
@pytest.mark.parametrize("size", [(16, 16, 16), (24, 32, 40)])
def test_marker_is_found_at_its_place_in_the_patient(tmp_path, permutation, size):
    """A bright blob in the original lies, through both affines, at the same world position when prepared."""
    study = write_study(tmp_path, "A", seg=False)
    marker = np.array([13, 8, 11])
    affine = AFFINE[:, [*permutation, 3]]
    for path in study.files.values():
        volume = np.minimum(brain_volume(), 300)
        volume[tuple(marker)] = 30000
        write_nifti(path, volume.transpose(permutation), affine)
    prepared = prepare_study(study, Settings(size=size, percentiles=(0, 100)))
    world = AFFINE @ [*marker, 1]
    expected_xyz = np.linalg.solve(prepared.affine, world)[:3]
    volume = prepared.volumes["t1"].astype(float)
    weights = np.where(volume > 60, volume, 0)
    found_zyx = [(weights * index).sum() / weights.sum() for index in np.indices(volume.shape)]
    np.testing.assert_allclose(found_zyx[::-1], expected_xyz, atol=0.5)


def test_prepared_grid_is_right_handed_canonical_and_isotropic(tmp_path):
    affine = prepare_study(write_study(tmp_path, "A"), SMALL).affine
    spacing = np.diag(affine)[:3]
    assert (spacing > 0).all()
    np.testing.assert_allclose(spacing, spacing[0])
    np.testing.assert_allclose(affine[:3, :3], np.diag(spacing), atol=1e-12)


def test_scanner_gain_does_not_matter(tmp_path):
    study = write_study(tmp_path, "A")
    before = prepare_study(study, SMALL).volumes["t2"]
    write_nifti(study.files["t2"], brain_volume(1).astype(np.int32) * 7)
    np.testing.assert_array_equal(prepare_study(study, SMALL).volumes["t2"], before)


def test_brain_mask_removes_the_skull(tmp_path):
    study = write_study(tmp_path, "A")
    bare = prepare_study(study, SMALL)
    brain = brain_volume() > 0
    for position, contrast in enumerate(CONTRASTS):
        with_skull = brain_volume(position)
        with_skull[0] = 2000
        write_nifti(study.files[contrast], with_skull)
    assert not np.array_equal(prepare_study(study, SMALL).volumes["t1"], bare.volumes["t1"])
    study.files["brain"] = write_nifti(tmp_path / "brain.nii.gz", brain.astype(np.uint8))
    np.testing.assert_array_equal(prepare_study(study, SMALL).volumes["t1"], bare.volumes["t1"])


@pytest.mark.parametrize("contrast", CONTRASTS)
def test_every_contrast_is_checked(tmp_path, contrast):
    study = write_study(tmp_path, "A")
    write_nifti(study.files[contrast], np.zeros(SHAPE, np.int16))
    with pytest.raises(ValueError, match=rf"A_{contrast}\.nii\.gz is empty"):
        prepare_study(study, SMALL)


@pytest.mark.parametrize("role", ["t2", "seg"])
def test_different_grids_are_refused(tmp_path, role):
    study = write_study(tmp_path, "A")
    moved = AFFINE.copy()
    moved[0, 3] += 3
    write_nifti(study.files[role], (brain_volume() > 0).astype(np.int16), moved)
    with pytest.raises(ValueError, match=rf"{role} and t1 are on different grids.*A_{role}\.nii\.gz"):
        prepare_study(study, SMALL)


def test_contrast_that_is_constant_in_the_brain_is_refused(tmp_path):
    study = write_study(tmp_path, "A")
    write_nifti(study.files["flair"], (brain_volume() > 0).astype(np.int16))
    with pytest.raises(ValueError, match=r"A_flair\.nii\.gz is constant inside the brain"):
        prepare_study(study, SMALL)


def test_scan_warnings_are_reported(tmp_path):
    study = write_study(tmp_path, "A")
    write_nifti(study.files["seg"], np.zeros(SHAPE, np.uint8))
    half = brain_volume()
    half[:, :, 9:] = 0
    write_nifti(study.files["t2"], half)
    warnings = "; ".join(prepare_study(study, SMALL).warnings)
    assert "segmentation is empty" in warnings
    assert "t2 is 0 in 5" in warnings
    for contrast in CONTRASTS:
        write_nifti(study.files[contrast], brain_volume() + np.arange(1, 19, dtype=np.int16))
    assert "skull" in "; ".join(prepare_study(study, SMALL).warnings)


@pytest.mark.parametrize(
    "wrong", [{"size": (4, 16, 16)}, {"percentiles": (99.0, 1.0)}, {"percentiles": (0.0, 101.0)}, {"margin": -1}]
)
def test_settings_are_checked(wrong):
    with pytest.raises(ValueError, match="--"):
        Settings(**wrong)


def test_each_setting_has_an_effect(tmp_path):
    study = write_study(tmp_path, "A")
    volumes = [
        prepare_study(study, settings).volumes["t1"]
        for settings in (SMALL, Settings(size=(16, 20, 24), percentiles=(5, 95)), Settings(size=(16, 20, 24), margin=3))
    ]
    assert not np.array_equal(volumes[0], volumes[1])
    assert not np.array_equal(volumes[0], volumes[2])


def test_some_contrasts_alone(tmp_path):
    study = write_study(tmp_path, "A")
    whole = prepare_study(study, SMALL)
    for contrast in ("t1", "t2"):
        study.files[contrast].unlink()
    part = prepare_study(study, SMALL, ("t1ce", "flair"))
    assert list(part.volumes) == ["t1ce", "flair"]
    np.testing.assert_array_equal(part.volumes["flair"], whole.volumes["flair"])
    assert part.source.path == study.files["t1ce"]


def test_settings_survive_json():
    settings = Settings(size=(16, 20, 24), percentiles=(1.0, 98.0), margin=3)
    assert Settings.from_json(settings.as_json()) == settings


@pytest.mark.parametrize("role", ["seg", "brain"])
def test_a_mask_of_the_brain_is_no_tumour_and_a_tumour_no_brain(tmp_path, role):
    study = write_study(tmp_path, "A")
    brain = brain_volume() > 0
    if role == "seg":
        write_nifti(study.files["seg"], brain.astype(np.uint8))
        message = r"A_seg\.nii\.gz covers 100% of the brain .* by --seg .* by --brain_mask"
    else:
        small = np.zeros(SHAPE, np.uint8)
        small[10, 12, 9] = 1
        study.files["brain"] = write_nifti(tmp_path / "b.nii.gz", small)
        message = r"b\.nii\.gz covers 0\.\d% of the image .* --brain_mask, and a tumour by --seg"
    with pytest.raises(ValueError, match=message):
        prepare_study(study, SMALL)


@pytest.mark.parametrize(("part", "is_given", "is_refused"), [(0.3, False, False), (0.5, False, True),
                                                             (0.5, True, False), (0.95, True, True)])  # fmt: skip
def test_the_largest_tumour(tmp_path, part, is_given, is_refused):
    study = write_study(tmp_path, "A")
    brain = brain_volume() > 0
    tumour = brain & (np.cumsum(brain.ravel()).reshape(SHAPE) <= part * brain.sum())
    write_nifti(study.files["seg"], tumour.astype(np.uint8) * 2)
    study.seg_is_given = is_given
    if is_refused:
        with pytest.raises(ValueError, match="is no tumour"):
            prepare_study(study, SMALL)
    else:
        assert prepare_study(study, SMALL).segmentation is not None


def test_a_tumour_of_litres_is_refused(tmp_path):
    """A mask of the brain within a whole head covers less of it."""
    affine = np.diag([12.0, 12, 12, 1])
    study = write_study(tmp_path, "A")
    for position, contrast in enumerate(CONTRASTS):
        write_nifti(study.files[contrast], brain_volume(position), affine)
    brain = brain_volume() > 0
    third = brain & (np.cumsum(brain.ravel()).reshape(SHAPE) <= 0.35 * brain.sum())
    write_nifti(study.files["seg"], third.astype(np.uint8), affine)
    assert third.sum() * 1.728 > 700
    with pytest.raises(ValueError, match=r"covers 35% of the brain \(\d+ ml\) and is no tumour"):
        prepare_study(study, SMALL)


def test_zeros_at_the_rim_are_no_cut(tmp_path):
    study = write_study(tmp_path, "A")
    brain = brain_volume() > 0
    write_nifti(study.files["t2"], np.where(binary_erosion(brain), brain_volume(1), 0).astype(np.int16))
    assert (brain & ~binary_erosion(brain)).sum() > 0.05 * brain.sum()
    assert prepare_study(study, SMALL).warnings == []


def test_a_warning_of_several_files_is_one_line(tmp_path):
    study = write_study(tmp_path, "A")
    for seed, contrast in enumerate(CONTRASTS):
        volume = brain_volume(seed).astype(np.float32)
        write_nifti(study.files[contrast], np.where(volume > 0, volume, np.nan))
    (warning,) = prepare_study(study, SMALL).warnings
    assert warning.startswith("t1, t2, t1ce, flair: ")
