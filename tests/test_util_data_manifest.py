"""The manifest gives back what was written, and refuses rows that cannot be used."""

import dataclasses

import numpy as np
import pytest

from util.data.manifest import FIELDS, ManifestRow, read_manifest, write_manifest

ROW = ManifestRow(
    subject='A, "quoted"',
    sources={"t1": "/raw/A_t1.nii.gz"},
    original_shape=[240, 240, 155],
    original_affine=np.diag([-1.0, -1, 1, 1]).tolist(),
    orientation="LPS",
    crop=[[1, 9], [2, 8], [3, 7]],
    affine=(np.eye(4) / 3).tolist(),
    window={"t1": [0.1, 812.5]},
    contrasts=["t1"],
    checksum={"t1/A_t1.npy": "0f"},
    warnings=["odd; but kept"],
    settings={"size": [160, 160, 160]},
)


def test_rows_come_back_exactly(tmp_path):
    other = dataclasses.replace(ROW, subject="B")
    write_manifest(tmp_path, {"B": other, ROW.subject: ROW})
    assert read_manifest(tmp_path) == {ROW.subject: ROW, "B": other}
    np.testing.assert_array_equal(ROW.prepared_affine, np.eye(4) / 3)


def test_no_manifest_is_no_rows(tmp_path):
    assert read_manifest(tmp_path) == {}


def test_duplicate_subject_is_refused(tmp_path):
    write_manifest(tmp_path, {"A": ROW})
    path = tmp_path / "manifest.csv"
    path.write_text(path.read_text() + path.read_text().splitlines()[1] + "\n")
    with pytest.raises(ValueError, match=r"manifest\.csv lists subject .* twice"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("find", "put", "message"),
    [
        ("affine", "afine", "no column"),
        ("[240, 240, 155]", "[240, 240", "line 2: .*remove that row"),
        ("0.3333333333333333", '""x""', "line 2"),
    ],
)
def test_damaged_manifest_names_line_and_fix(tmp_path, find, put, message):
    write_manifest(tmp_path, {"A": ROW})
    path = tmp_path / "manifest.csv"
    path.write_text(path.read_text().replace(find, put))
    with pytest.raises(ValueError, match=message):
        read_manifest(tmp_path)


def test_affine_must_be_four_by_four(tmp_path):
    write_manifest(tmp_path, {"A": dataclasses.replace(ROW, affine=np.eye(3).tolist())})
    with pytest.raises(ValueError, match="affine is not 4 x 4"):
        read_manifest(tmp_path)


def test_every_field_is_a_column(tmp_path):
    write_manifest(tmp_path, {"A": ROW})
    assert (tmp_path / "manifest.csv").read_text().splitlines()[0].split(",") == FIELDS
