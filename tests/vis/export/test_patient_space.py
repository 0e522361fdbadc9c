"""Round trips through the real preparation: positions on the prepared grid are the right ones in patient space."""

import itertools

import nibabel
import numpy as np
import pytest

from tests.helpers.raw_studies import write_nifti
from util.data.folder import CONTRASTS
from util.data.manifest import ManifestRow, write_manifest
from util.data.prepare.study import Settings, prepare_study
from util.data.raw.layouts import RawStudy
from vis.export.patient_space import PatientSpace, patient_spaces

SHAPE = (40, 48, 30)  # x, y, z as stored
LESION = (slice(12, 20), slice(14, 26), slice(9, 17))  # asymmetric in every axis, not at the centre


def rotation(degrees, axis):
    angle = np.radians(degrees)
    turned = np.eye(3)
    i, j = [k for k in range(3) if k != axis]
    turned[i, i] = turned[j, j] = np.cos(angle)
    turned[i, j], turned[j, i] = -np.sin(angle), np.sin(angle)
    return turned


def affine(directions, voxel_mm):
    result = np.eye(4)
    result[:3, :3] = directions @ np.diag(voxel_mm)
    result[:3, 3] = (-37, 21, 11)
    return result


AFFINES = {
    "LPS": affine(np.diag([-1, -1, 1]), (1, 1, 1)),
    "RAS, uneven voxels": affine(np.eye(3), (0.9, 1.1, 2.5)),
    "left-right flip, uneven": affine(np.diag([-1, 1, 1]), (1.0, 0.7, 1.6)),
    "axes swapped (PIR)": affine(np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]]), (1.2, 0.8, 1.0)),
    "oblique": affine(rotation(14, 0) @ rotation(-9, 2) @ np.diag([-1, 1, 1]), (1.0, 1.3, 2.0)),
}


def prepared(folder, matrix, size):
    """A prepared study, its manifest row as prepare_data.py writes it, and its lesion mask."""
    index = np.stack(np.meshgrid(*(np.linspace(-1, 1, side) for side in SHAPE), indexing="ij"))
    brain = (index**2).sum(0) < 0.75
    values = np.where(brain, np.random.default_rng(0).integers(100, 900, SHAPE), 0).astype(np.int16)
    lesion = np.zeros(SHAPE, np.uint8)
    lesion[LESION] = 1
    files = {name: write_nifti(folder / f"{name}.nii.gz", values, matrix) for name in CONTRASTS}
    files["seg"] = write_nifti(folder / "seg.nii.gz", lesion, matrix)
    found = prepare_study(RawStudy("A", files), Settings(size=size))
    row = ManifestRow(
        subject="A", sources={}, original_shape=list(found.source.stored_shape),
        original_affine=found.source.stored_affine.tolist(), orientation=found.source.orientation,
        crop=[list(pair) for pair in found.crop], affine=found.affine.tolist(), window={}, contrasts=list(CONTRASTS),
        checksum={}, warnings=[], settings={},
    )  # fmt: skip
    return found, row, lesion


@pytest.mark.parametrize("name", AFFINES)
def test_lesion_corners_land_within_half_a_voxel(tmp_path, name):
    """Both edges of a box in patient space, after preparation and back as a float map, on every axis.

    The prepared grid is finer than that of the file, so rounding of the mask costs at most half a voxel of the file.
    """
    found, row, _ = prepared(tmp_path, AFFINES[name], (112, 112, 112))
    back = PatientSpace.of(row).to_patient(found.segmentation.astype(np.float32))
    assert back.shape == SHAPE
    assert back.dtype == np.float32
    for axis, part in enumerate(LESION):
        first, last = _edges(_through(back, axis))
        assert abs(first - (part.start - 0.5)) < 0.5
        assert abs(last - (part.stop - 0.5)) < 0.5


def _through(volume, axis):
    """The mean profile along `axis` through the core of the lesion."""
    core = [slice(part.start + 3, part.stop - 3) for part in LESION]
    core[axis] = slice(None)
    return volume[tuple(core)].mean(axis=tuple(other for other in range(3) if other != axis))


def _edges(line):
    """The positions, in voxels, where a box profile crosses 0.5, by linear interpolation."""
    above = np.flatnonzero(line > 0.5)
    first, last = above[0], above[-1]
    rise = first - (line[first] - 0.5) / (line[first] - line[first - 1])
    fall = last + (line[last] - 0.5) / (line[last] - line[last + 1])
    return rise, fall


@pytest.mark.parametrize("name", AFFINES)
def test_world_coordinates_survive(tmp_path, name):
    """A function that is linear in world mm stays the same function in patient space, inside the crop."""
    found, row, _ = prepared(tmp_path, AFFINES[name], (48, 48, 48))
    direction = np.array([0.3, -1.1, 0.7])

    def ramp(matrix, shape_xyz):
        index = np.stack(np.meshgrid(*map(np.arange, shape_xyz), indexing="ij"), axis=-1)
        return (index @ matrix[:3, :3].T + matrix[:3, 3]) @ direction

    sent = ramp(found.affine, (48, 48, 48)).transpose(2, 1, 0)
    back = PatientSpace.of(row).to_patient(sent)
    expected = ramp(AFFINES[name], SHAPE)
    core = back != 0
    inside = _shrunk(core)
    assert inside.mean() > 0.3
    np.testing.assert_allclose(back[inside], expected[inside], atol=1e-3)


def _shrunk(core):
    """The core without the two outermost voxels on every side, where the prepared grid may end first."""
    places = np.argwhere(core)
    low, high = places.min(0) + 2, places.max(0) - 1
    shrunk = np.zeros_like(core)
    shrunk[tuple(slice(a, b) for a, b in zip(low, high))] = True
    return shrunk


def test_a_map_is_zero_outside_the_crop_only(tmp_path):
    found, row, _ = prepared(tmp_path, AFFINES["oblique"], (32, 32, 32))
    back = PatientSpace.of(row).to_patient(np.ones((32, 32, 32)))
    assert set(np.unique(back)) == {0.0, 1.0}
    assert (back == 1).sum() == np.prod([stop - start for start, stop in found.crop])
    brain = nibabel.load(tmp_path / "t1.nii.gz").get_fdata() != 0
    assert (back[brain] == 1).all()


def test_labels_keep_their_values(tmp_path):
    found, row, lesion = prepared(tmp_path, AFFINES["LPS"], (64, 64, 64))
    back = PatientSpace.of(row).to_patient(found.segmentation * 4, order=0)
    assert back.dtype == np.uint8
    assert set(np.unique(back)) == {0, 4}
    assert 2 * ((back > 0) & (lesion > 0)).sum() / ((back > 0).sum() + lesion.sum()) > 0.9


def test_left_stays_left(tmp_path):
    """A map that is 1 in the left half of the patient (world x below the middle), for any orientation of the file."""
    for name, size in itertools.product(("LPS", "left-right flip, uneven"), [(32, 32, 32)]):
        found, row, _ = prepared(tmp_path / name, AFFINES[name], size)
        left = np.zeros(size)
        left[:, :, :16] = 1  # prepared volumes are RAS+: small x is the patient's left
        back = PatientSpace.of(row).to_patient(left)
        (start, stop), flipped = found.crop[0], AFFINES[name][0, 0] < 0
        middle = (start + stop) / 2
        left_columns = np.arange(SHAPE[0]) > SHAPE[0] - 1 - middle if flipped else np.arange(SHAPE[0]) < middle
        assert back[left_columns].mean() > 5 * back[~left_columns].mean()


def test_a_manifest_without_the_crop_is_an_error(tmp_path):
    _, row, _ = prepared(tmp_path, AFFINES["LPS"], (32, 32, 32))
    lost = ManifestRow(**{**row.__dict__, "crop": []})
    with pytest.raises(ValueError, match="does not record the original grid of A; prepare the subject again"):
        PatientSpace.of(lost)


def test_spaces_of_a_prepared_folder(tmp_path):
    assert patient_spaces(tmp_path) == {}
    _, row, _ = prepared(tmp_path, AFFINES["oblique"], (32, 32, 32))
    write_manifest(tmp_path, {"A": row})
    np.testing.assert_allclose(patient_spaces(tmp_path)["A"].affine, AFFINES["oblique"], atol=1e-5)
