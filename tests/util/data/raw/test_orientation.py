"""A file without orientation is refused, or read as the user says; every format keeps each voxel at its place."""

import argparse
import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest

from tests.helpers.raw_studies import AFFINE, SHAPE, brain_volume, write_study
from util.data.prepare.study import Settings, prepare_study
from util.data.raw.nifti import read_image, read_mask
from util.data.raw.orientation import assumed_affine, orientation_code

VOXEL = (13, 8, 11)


def without_orientation(kind=nibabel.Nifti1Image):
    image = kind(brain_volume(), AFFINE)
    image.set_qform(None, 0)
    image.set_sform(None, 0)
    return image


def written(image, path: Path) -> Path:
    nibabel.save(image, path)
    return path


def check_places(path, tolerance=0.0):
    """Every voxel is where AFFINE puts it."""
    volume = read_image(path)
    x, y, z = np.rint(np.linalg.solve(volume.affine, AFFINE @ [*VOXEL, 1]))[:3].astype(int)
    assert volume.orientation == "LPS"
    assert volume.data[x, y, z] == pytest.approx(brain_volume()[VOXEL], abs=tolerance)
    assert volume.warnings == ()


def analyze(tmp_path, kind=nibabel.Spm99AnalyzeImage, name="a.img") -> Path:
    kind(brain_volume(), np.diag([-2, 2, 2.5, 1])).to_filename(tmp_path / name)
    return tmp_path / name


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_codes_0_are_no_orientation(tmp_path, kind):
    path = written(without_orientation(kind), tmp_path / "a.nii.gz")
    with pytest.raises(ValueError, match=r"a\.nii\.gz has no orientation in its header .* --assume_orientation"):
        read_image(path)
    with pytest.raises(ValueError, match="no orientation"):
        read_mask(written(nibabel.Nifti1Image(np.zeros(SHAPE, np.uint8), None), tmp_path / "b.nii"))


@pytest.mark.parametrize("kind", [nibabel.AnalyzeImage, nibabel.Spm99AnalyzeImage, nibabel.Spm2AnalyzeImage])
@pytest.mark.parametrize("given", ["a.img", "a.hdr"])
def test_analyze_has_no_orientation(tmp_path, kind, given):
    analyze(tmp_path, kind)
    (tmp_path / "a.mat").unlink(missing_ok=True)  # SPM's orientation in a file of MATLAB
    with pytest.raises(ValueError, match=rf"{given} has no orientation"):
        read_image(tmp_path / given)
    volume = read_image(tmp_path / given, "LPS")
    np.testing.assert_array_equal(volume.data, brain_volume()[::-1, ::-1])
    np.testing.assert_allclose(np.diag(volume.affine)[:3], [2, 2, 2.5])


def test_a_pair_needs_both_files(tmp_path):
    analyze(tmp_path).with_suffix(".hdr").unlink()
    with pytest.raises(ValueError, match=r"a\.img has no a\.hdr beside it"):
        read_image(tmp_path / "a.img")


def test_assumed_orientation_is_warned_about(tmp_path):
    path = written(without_orientation(), tmp_path / "a.nii.gz")
    volume = read_image(path, "LPS")
    np.testing.assert_array_equal(volume.data, brain_volume()[::-1, ::-1])
    assert volume.warnings == ("the header has no orientation, assumed is LPS",)
    np.testing.assert_array_equal(read_image(path, "RAS").data, brain_volume())
    oriented = written(nibabel.Nifti1Image(brain_volume(), AFFINE), tmp_path / "b.nii.gz")
    assert read_image(oriented, "RAS").orientation == "LPS"  # an assumption never overrides a header
    np.testing.assert_allclose(np.linalg.norm(volume.affine[:3, :3], axis=0), [2, 2, 2.5])


@pytest.mark.parametrize("code", ["LAS", "PIR", "SRA"])
def test_assumed_affine_points_where_the_code_says(code):
    affine = assumed_affine(code, SHAPE, np.array([1.0, 2.0, 3.0]))
    assert "".join(nibabel.aff2axcodes(affine)) == code
    np.testing.assert_allclose(affine @ [*((np.array(SHAPE) - 1) / 2), 1], [0, 0, 0, 1], atol=1e-12)


@pytest.mark.parametrize("code", ["LP", "LPX", "LRS", "LPSR", "", "L P S"])
def test_a_code_names_each_axis_once(code):
    with pytest.raises(argparse.ArgumentTypeError, match="is not an orientation"):
        orientation_code(code)
    assert orientation_code("las") == "LAS"


def test_a_study_says_what_is_assumed(tmp_path):
    study = write_study(tmp_path, "A")
    for path in study.files.values():
        image = nibabel.load(path)
        image.set_qform(None, 0)
        image.set_sform(None, 0)
        nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), None, image.header), path)
    with pytest.raises(ValueError, match="no orientation"):
        prepare_study(study, Settings(size=(16, 16, 16)))
    study.assumed_orientation = "LPS"
    warnings = prepare_study(study, Settings(size=(16, 16, 16))).warnings
    assert "t1, t2, t1ce, flair, seg: the header has no orientation, assumed is LPS" in warnings


def test_qform_alone_places_the_voxels(tmp_path):
    image = without_orientation()
    image.set_qform(AFFINE, 1)
    check_places(written(image, tmp_path / "a.nii.gz"))


def test_forms_that_name_other_directions_say_so(tmp_path):
    image = nibabel.Nifti1Image(brain_volume(), AFFINE)
    image.set_qform(AFFINE, 1)
    image.set_sform(AFFINE @ np.diag([-1, 1, 1, 1]), 1)
    (warning,) = read_image(written(image, tmp_path / "a.nii")).warnings
    assert "name other directions (LPS and RPS); the sform is used" in warning


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "A.NII.GZ"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("stored", ["<i2", ">i2", "<f8", ">f4", "<u4"])
def test_formats_and_byte_orders(tmp_path, name, kind, stored):
    header = kind.header_class(endianness=stored[0])
    header.set_data_dtype(np.dtype(stored))
    image = kind(brain_volume().astype(stored), AFFINE, header)
    path = tmp_path / name
    content = image.to_bytes()
    assert kind.header_class(content[: header.sizeof_hdr]).endianness == stored[0]
    path.write_bytes(gzip.compress(content) if name.lower().endswith("gz") else content)
    check_places(path)


@pytest.mark.parametrize("stored", [np.int8, np.uint8, np.int16, np.int32])
def test_slope_and_intercept_of_integers(tmp_path, stored):
    image = nibabel.Nifti1Image(brain_volume().astype(float), AFFINE)
    image.set_data_dtype(stored)
    nibabel.save(image, tmp_path / "a.nii.gz")  # nibabel chooses slope and intercept
    slope = 900 / np.iinfo(stored).max
    check_places(tmp_path / "a.nii.gz", tolerance=slope + 1e-3)


def test_nifti_pair_and_mgh(tmp_path):
    for kind in (nibabel.Nifti1Pair, nibabel.Nifti2Pair):
        kind(brain_volume(), AFFINE).to_filename(tmp_path / "pair.img")
        check_places(tmp_path / "pair.img")
        check_places(tmp_path / "pair.hdr")
    for name in ("a.mgz", "a.mgh"):
        check_places(written(nibabel.MGHImage(brain_volume().astype(np.float32), AFFINE), tmp_path / name))
    content = bytearray((tmp_path / "a.mgh").read_bytes())
    content[28:30] = bytes(2)
    (tmp_path / "a.mgh").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.mgh has neither voxel size nor orientation"):
        read_image(tmp_path / "a.mgh", "LPS")
    (tmp_path / "a.mgh").write_bytes(content[:-9000])
    with pytest.raises(ValueError, match=r"a\.mgh"):
        read_image(tmp_path / "a.mgh")


@pytest.mark.parametrize("behind", [bytes(512), b"padding of a tape" * 40, b"x", bytes(5) + b"x"])
def test_bytes_behind_the_gzip_stream_are_ignored(tmp_path, behind):
    content = nibabel.Nifti1Image(brain_volume(), AFFINE).to_bytes()
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(content) + behind)
    check_places(tmp_path / "a.nii.gz")
    half = len(content) // 2
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(content[:half]) + gzip.compress(content[half:]) + behind)
    check_places(tmp_path / "a.nii.gz")


def test_a_gzip_stream_is_checked_to_its_end(tmp_path):
    content = gzip.compress(nibabel.Nifti1Image(brain_volume(), AFFINE).to_bytes())
    for damaged in (content[:-1], content[:-8] + bytes(4) + content[-4:]):
        (tmp_path / "a.nii.gz").write_bytes(damaged)
        with pytest.raises(ValueError, match="truncated or damaged"):
            read_image(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.MGHImage])
def test_frames(tmp_path, kind):
    name = "a.mgz" if kind is nibabel.MGHImage else "a.nii.gz"
    volume = brain_volume().astype(np.float32)
    if kind is nibabel.Nifti1Image:  # nibabel writes no such MGH file
        check_places(written(kind(volume[..., None], AFFINE), tmp_path / name))
    with pytest.raises(ValueError, match=r"has 4 dimensions .*extract one 3-D volume"):
        read_image(written(kind(np.stack([volume, volume], 3), AFFINE), tmp_path / name))


def test_five_dimensions_of_which_two_are_1(tmp_path):
    check_places(written(nibabel.Nifti1Image(brain_volume()[..., None, None], AFFINE), tmp_path / "a.nii"))
