"""Headers with false sizes, and files that unpack to gigabytes, cost neither memory nor time."""

import gzip

import nibabel
import numpy as np
import pytest

from tests.helpers.bounded import messages
from tests.helpers.raw_studies import AFFINE, brain_volume
from util.data.raw.nifti import read_image
from util.data.raw.nifti_file import MAX_EXTRA_BYTES, MAX_VOXELS, open_nifti

MIB_BEYOND_IMPORTS = 64


def nifti(kind=nibabel.Nifti1Image, **fields) -> bytes:
    """A whole small file with some header fields put in."""
    content = bytearray(kind(brain_volume(), AFFINE).to_bytes())
    header = kind.header_class(bytes(content[: kind.header_class.sizeof_hdr]))
    for name, value in fields.items():
        header[name] = value
    content[: kind.header_class.sizeof_hdr] = header.binaryblock
    return bytes(content)


def test_false_sizes_and_bombs_are_refused_in_little_memory(tmp_path):
    zeros = gzip.compress(bytes(64 * 2**20))
    bombs = {
        "terabytes.nii": nifti(dim=[3, 32767, 32767, 32767, 1, 1, 1, 1]),
        "nifti2.nii": nifti(nibabel.Nifti2Image, dim=[3, 2**40, 2**20, 2**20, 1, 1, 1, 1]),
        "promise.nii": nifti(dim=[3, 512, 512, 512, 1, 1, 1, 1]),
        "promise.nii.gz": gzip.compress(nifti(dim=[3, 512, 512, 512, 1, 1, 1, 1])),
        "bomb.nii.gz": gzip.compress(nifti()) + 64 * zeros,  # 4 GiB behind a small scan
        "offset.nii": nifti(vox_offset=1e30),
        "nan.nii": nifti(vox_offset=np.nan),
        "frames.nii": nifti(dim=[4, 20, 24, 18, 30000, 1, 1, 1]),
        "nothing.nii": nifti(dim=[3, 0, 24, 18, 1, 1, 1, 1]),
    }
    for name, content in bombs.items():
        (tmp_path / name).write_bytes(content)
    said = messages(
        "from util.data.raw.nifti import read_image", "read_image(path)",
        [tmp_path / name for name in bombs], mib=MIB_BEYOND_IMPORTS,
    )  # fmt: skip
    for name in ("terabytes.nii", "nifti2.nii", "nothing.nii"):
        assert f"{name} states" in said[name]
    for name in ("promise.nii", "promise.nii.gz"):
        assert f"{name} is truncated" in said[name]
    for name in ("offset.nii", "nan.nii"):
        assert f"{name} states that voxels start" in said[name]
    assert "bomb.nii.gz has more than 16 MiB after" in said["bomb.nii.gz"]
    assert "frames.nii has 4 dimensions" in said["frames.nii"]


def test_bound_is_above_any_head_and_exact(tmp_path, monkeypatch):
    assert MAX_VOXELS > (256 / 0.5) ** 2 * 400  # 25.6 x 25.6 x 20 cm at half a millimetre
    monkeypatch.setattr("util.data.raw.nifti_file.MAX_VOXELS", brain_volume().size)
    (tmp_path / "a.nii").write_bytes(nifti())
    assert open_nifti(tmp_path / "a.nii").shape == brain_volume().shape
    monkeypatch.setattr("util.data.raw.nifti_file.MAX_VOXELS", brain_volume().size - 1)
    with pytest.raises(ValueError, match=r"a\.nii states 20 x 24 x 18 voxels, the allowed range is 1 to 8,639"):
        open_nifti(tmp_path / "a.nii")


def test_extensions_and_a_little_more_behind_the_voxels_are_read(tmp_path):
    image = nibabel.Nifti1Image(brain_volume(), AFFINE)
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"x" * 100_000))
    (tmp_path / "a.nii").write_bytes(image.to_bytes() + bytes(1000))
    np.testing.assert_array_equal(open_nifti(tmp_path / "a.nii").get_fdata(), brain_volume())
    (tmp_path / "a.nii").write_bytes(image.to_bytes() + bytes(MAX_EXTRA_BYTES + 1))
    with pytest.raises(ValueError, match="after its last voxel"):
        open_nifti(tmp_path / "a.nii")


@pytest.mark.parametrize("sides", [(1e-9, 1, 1), (1e9, 1, 1)])
def test_affine_must_place_voxels_in_millimetres(tmp_path, sides):
    image = nibabel.Nifti1Image(brain_volume(), np.diag([*sides, 1]))
    (tmp_path / "a.nii").write_bytes(image.to_bytes())
    with pytest.raises(ValueError, match=r"a\.nii has no usable affine"):
        read_image(tmp_path / "a.nii")


def test_axes_in_one_plane_are_no_affine(tmp_path):
    flat = np.diag([1.0, 1, 1, 1])
    flat[:3, 2] = [1, 1, 1e-4]
    image = nibabel.Nifti1Image(brain_volume(), flat)
    (tmp_path / "a.nii").write_bytes(image.to_bytes())
    with pytest.raises(ValueError, match=r"a\.nii has no usable affine"):
        read_image(tmp_path / "a.nii")
