"""NIfTI files keep values and place."""

import nibabel
import numpy as np

from tests.helpers.vis_cases import AFFINE
from vis.export.nifti import write_nifti


def test_values_and_place_survive(tmp_path):
    volume = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)  # (Z, Y, X)
    path = tmp_path / "deep" / "map.nii.gz"
    write_nifti(path, volume, AFFINE)
    image = nibabel.load(path)
    assert image.get_data_dtype() == np.float32
    assert image.shape == (6, 5, 4)
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), volume.transpose(2, 1, 0))
    np.testing.assert_allclose(image.affine, AFFINE, atol=1e-6)
    assert image.header.get_xyzt_units()[0] == "mm"


def test_same_volume_same_bytes_and_no_leftovers(tmp_path):
    for name in ("a.nii.gz", "b.nii.gz"):
        write_nifti(tmp_path / name, np.ones((2, 2, 2)), AFFINE)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.nii.gz", "b.nii.gz"]
