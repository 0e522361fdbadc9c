"""Reading NIfTI: canonical orientation, and an error with the file and the fix for implausible content."""

import gzip

import nibabel
import numpy as np
import pytest

from tests.helpers.raw_studies import AFFINE, SHAPE, brain_volume, write_nifti
from util.data.raw.nifti import check_same_grid, read_image, read_mask


def test_canonical_array_keeps_every_voxel_at_its_place(tmp_path):
    stored = brain_volume().transpose(2, 0, 1)  # stored in an unusual order
    affine = AFFINE[:, [2, 0, 1, 3]]
    volume = read_image(write_nifti(tmp_path / "a.nii.gz", stored, affine))
    assert volume.orientation == "SLP"
    assert volume.data.shape == SHAPE
    assert volume.data.dtype == np.float32
    assert volume.stored_shape == stored.shape
    assert (np.diag(volume.affine)[:3] > 0).all()
    for index in ([3, 12, 9], [14, 10, 5]):
        world = affine @ [*index, 1]
        x, y, z = np.rint(np.linalg.solve(volume.affine, world))[:3].astype(int)
        assert volume.data[x, y, z] == stored[tuple(index)]


def test_scaled_and_single_frame_files_read(tmp_path):
    image = nibabel.Nifti1Image(brain_volume()[..., None], AFFINE)
    image.header.set_slope_inter(2.0, 0)
    nibabel.save(image, tmp_path / "a.nii")
    assert read_image(tmp_path / "a.nii").data.shape == SHAPE


def with_value(value: float) -> np.ndarray:
    volume = brain_volume().astype(np.float32)
    volume[5, 5, 5] = value
    return volume


@pytest.mark.parametrize(
    ("volume", "message"),
    [
        (with_value(np.nan), r"a\.nii\.gz has 1 NaN or Inf voxels; repair it"),
        (with_value(np.inf), r"a\.nii\.gz has 1 NaN or Inf voxels"),
        (np.zeros(SHAPE, np.int16), r"a\.nii\.gz is empty"),
        (np.full(SHAPE, 7, np.int16), r"a\.nii\.gz is constant \(all 7\)"),
        (np.zeros((*SHAPE, 3), np.int16), r"a\.nii\.gz has 4 dimensions .*extract one 3-D volume"),
        (np.zeros(SHAPE[:2], np.int16), r"a\.nii\.gz has 2 dimensions"),
        (np.zeros(SHAPE, np.complex64), r"a\.nii\.gz holds colours or complex numbers"),
    ],
)
def test_bad_voxels_name_the_file(tmp_path, volume, message):
    path = write_nifti(tmp_path / "a.nii.gz", volume)
    with pytest.raises(ValueError, match=message):
        read_image(path)


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii"])
@pytest.mark.parametrize("share", [0.5, 0.97])
def test_truncated_file(tmp_path, name, share):
    path = write_nifti(tmp_path / name, brain_volume())
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match=rf"{name} is (truncated|not a NIfTI)"):
        read_image(path)


@pytest.mark.parametrize("content", [b"", b"not an image" * 100, gzip.compress(b"not an image" * 100)])
@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii"])
def test_file_that_is_no_nifti(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name} is (not a NIfTI|truncated)"):
        read_image(tmp_path / name)


def test_corrupted_bytes_inside(tmp_path):
    path = write_nifti(tmp_path / "a.nii.gz", brain_volume())
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 40] = bytes(40)
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=r"a\.nii\.gz is truncated or damaged"):
        read_image(path)


def test_missing_file_and_singular_affine(tmp_path):
    with pytest.raises(ValueError, match=r"a\.nii\.gz is missing"):
        read_image(tmp_path / "a.nii.gz")
    image = nibabel.Nifti1Image(brain_volume(), None)
    image.header["sform_code"] = 1
    image.header["srow_x"] = 0
    (tmp_path / "a.nii").write_bytes(image.to_bytes())
    with pytest.raises(ValueError, match="no usable affine"):
        read_image(tmp_path / "a.nii")


@pytest.mark.parametrize("value", [0.5, -1, 300, np.nan])
def test_mask_holds_labels(tmp_path, value):
    path = write_nifti(tmp_path / "a.nii.gz", np.where(brain_volume() > 0, value, 0).astype(np.float32))
    with pytest.raises(ValueError, match=r"a\.nii\.gz has values that are no whole numbers"):
        read_mask(path)


def test_empty_mask_is_a_mask(tmp_path):
    mask = read_mask(write_nifti(tmp_path / "a.nii.gz", np.zeros(SHAPE, np.float32)))
    assert mask.data.dtype == np.uint8


def test_same_grid(tmp_path):
    def volume(name, affine=AFFINE, shape=SHAPE):
        return read_image(write_nifti(tmp_path / name, brain_volume(shape=shape), affine))

    first = volume("first.nii.gz")
    nudged = AFFINE.copy()
    nudged[0, 3] += 0.01
    check_same_grid({"t1": first, "t2": volume("nudged.nii.gz", nudged)})
    flipped = read_image(
        write_nifti(
            tmp_path / "f.nii.gz",
            brain_volume()[::-1],
            AFFINE @ np.array([[-1.0, 0, 0, SHAPE[0] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
        )
    )
    check_same_grid({"t1": first, "t2": flipped})  # stored the other way round, the same grid in space
    moved = AFFINE.copy()
    moved[2, 3] += 5
    with pytest.raises(ValueError, match=r"t2 and t1 are on different grids \(corners 5\.00 mm apart\).*moved\.nii"):
        check_same_grid({"t1": first, "t2": volume("moved.nii.gz", moved)})
    scaled = AFFINE @ np.diag([1.05, 1, 1, 1])
    with pytest.raises(ValueError, match="on different grids"):
        check_same_grid({"t1": first, "t2": volume("scaled.nii.gz", scaled)})
    with pytest.raises(ValueError, match=r"\(10, 24, 18\) and \(20, 24, 18\) voxels"):
        check_same_grid({"t1": first, "t2": volume("short.nii.gz", shape=(10, 24, 18))})


@pytest.mark.parametrize("spoiled", ["zero", "nan"])
def test_an_affine_that_places_no_voxel_is_refused(tmp_path, spoiled):
    image = nibabel.Nifti1Image(brain_volume(), AFFINE)
    image.header["sform_code"] = 1
    for row in ("srow_x", "srow_y", "srow_z"):
        image.header[row] = 0 if spoiled == "zero" else np.nan
    (tmp_path / "a.nii").write_bytes(image.header.binaryblock + bytes(4) + image.dataobj.tobytes(order="F"))
    with pytest.raises(ValueError, match=r"a\.nii has no usable affine in its header; convert it again"):
        read_image(tmp_path / "a.nii")


@pytest.mark.parametrize("background", [np.nan, -1000, 7.5, 3e4])
def test_a_background_other_than_0_is_background(tmp_path, background):
    volume = np.where(brain_volume() > 0, brain_volume(), background).astype(np.float32)
    found = read_image(write_nifti(tmp_path / "a.nii.gz", volume))
    np.testing.assert_array_equal(found.data, brain_volume()[::-1, ::-1])
    assert len(found.warnings) == (1 if np.isnan(background) else 0)
    volume[10, 12, 9] = np.inf
    with pytest.raises(ValueError, match="has 1 NaN or Inf voxels"):
        read_image(write_nifti(tmp_path / "a.nii.gz", volume))


def test_labels_are_rounded(tmp_path):
    labels = np.where(brain_volume() > 0, 4, 0)
    noise = np.random.default_rng(0).uniform(-1e-4, 1e-4, SHAPE)
    mask = read_mask(write_nifti(tmp_path / "a.nii.gz", (labels + noise).astype(np.float32)))
    np.testing.assert_array_equal(mask.data, labels[::-1, ::-1])
