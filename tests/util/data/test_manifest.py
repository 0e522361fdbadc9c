"""The manifest gives back what was written, and refuses rows that cannot be used."""

import csv
import dataclasses

import numpy as np
import pytest

from util.data.manifest import FIELDS, MAX_BYTES, ManifestRow, read_manifest, write_manifest

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
    checksum={'t1/A, "quoted"_t1.npy': "0f"},
    warnings=["odd; but kept"],
    settings={"size": [160, 160, 160]},
)


def test_rows_come_back_exactly(tmp_path):
    other = dataclasses.replace(ROW, subject="B", checksum={"seg_mask/B_seg.npy": "1e"})
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
    with pytest.raises(ValueError, match="affine is not 4 x 4 finite"):
        read_manifest(tmp_path)


def test_every_field_is_a_column(tmp_path):
    write_manifest(tmp_path, {"A": ROW})
    assert (tmp_path / "manifest.csv").read_text().splitlines()[0].split(",") == FIELDS


@pytest.mark.parametrize(
    "name",
    [
        "../outside.npy",
        "/etc/passwd",
        "t1/../../outside.npy",
        "t1/C_t1.npy",
        "qc/B.png",
        "manifest.csv",
        "t1\\B_t1.npy",
    ],
)
def test_paths_that_are_no_file_of_the_subject_are_refused(tmp_path, name):
    write_manifest(tmp_path, {"B": dataclasses.replace(ROW, subject="B", checksum={name: "0f"})})
    with pytest.raises(ValueError, match=r"line 2: .* is no file of subject 'B'; remove that row"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("subject", ["../B", "a\nb", "=1+1", ""])
def test_dangerous_names_are_refused(tmp_path, subject):
    write_manifest(tmp_path, {"B": dataclasses.replace(ROW, subject=subject, checksum={})})
    with pytest.raises(ValueError, match=r"line \d: the subject name .*rename the subject"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("linked", ["t1", "t1/B_t1.npy"])
def test_links_out_of_the_folder_are_refused(tmp_path, linked):
    root, outside = tmp_path / "data", tmp_path / "outside"
    (root / linked).parent.mkdir(parents=True)
    outside.mkdir()
    (outside / "B_t1.npy").touch()
    (root / linked).symlink_to(outside if linked == "t1" else outside / "B_t1.npy")
    write_manifest(root, {"B": dataclasses.replace(ROW, subject="B", checksum={"t1/B_t1.npy": "0f"})})
    with pytest.raises(ValueError, match=r"t1/B_t1\.npy is a link that leaves"):
        read_manifest(root)


def test_links_within_the_folder_and_to_the_folder_are_fine(tmp_path):
    root = tmp_path / "data"
    (root / "t1").mkdir(parents=True)
    (root / "original.npy").touch()
    (root / "t1" / "B_t1.npy").symlink_to(root / "original.npy")
    row = dataclasses.replace(ROW, subject="B", checksum={"t1/B_t1.npy": "0f"})
    write_manifest(root, {"B": row})
    (tmp_path / "link").symlink_to(root)
    assert read_manifest(tmp_path / "link") == {"B": row}


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("affine", "[[NaN, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]", "4 x 4 finite"),
        ("original_affine", f"[[{10**400}]]", "too large"),
        ("warnings", "[" * 100_000, "recursion"),
        ("checksum", "[]", "checksum is not a dict"),
        ("crop", '[["a", 1]]', "whole numbers"),
        ("sources", '{"t1": 1}', "sources are not file names"),
    ],
    ids=["nan", "huge", "deep", "list", "text", "number"],
)
def test_values_of_other_kinds_are_refused(tmp_path, field, value, message):
    write_manifest(tmp_path, {"B": ROW})
    path = tmp_path / "manifest.csv"
    with path.open(newline="") as file:
        (cells,) = csv.DictReader(file)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerow({**cells, field: value})
    with pytest.raises(ValueError, match=rf"line 2: .*{message}.*remove that row"):
        read_manifest(tmp_path)


def test_size_is_bounded_before_anything_is_read(tmp_path):
    path = tmp_path / "manifest.csv"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(ValueError, match="is larger than 64 MiB"):
        read_manifest(tmp_path)
