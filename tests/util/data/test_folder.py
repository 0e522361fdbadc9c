"""The file names of the prepared folder, and the checks of its files."""

import numpy as np
import pytest

from util.data.folder import (
    CONTRASTS,
    BadVolume,
    find_subjects,
    open_volume,
    read_header,
    read_volume,
    segmentation_path,
    volume_path,
)


def test_file_names_are_those_of_the_paper(tmp_path):
    assert CONTRASTS == ("t1", "t2", "t1ce", "flair")
    assert volume_path(tmp_path, "A", "t1ce") == tmp_path / "t1ce" / "A_t1ce.npy"
    assert segmentation_path(tmp_path, "A") == tmp_path / "seg_mask" / "A_seg.npy"


def test_subjects_are_sorted_and_half_written_files_ignored(tmp_path):
    for contrast in CONTRASTS:
        for subject in ("b_t1", "a"):
            volume_path(tmp_path, subject, contrast).parent.mkdir(exist_ok=True)
            volume_path(tmp_path, subject, contrast).touch()
    (tmp_path / "t1" / ".c_t1.npy.x1.tmp").touch()
    assert find_subjects(tmp_path) == ["a", "b_t1"]


def test_opening_reads_the_header_only(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 3, 4), np.uint8))
    assert read_header(tmp_path / "a.npy") == (2, 3, 4)
    assert isinstance(open_volume(tmp_path / "a.npy"), np.memmap)


@pytest.mark.parametrize(
    "content", [np.zeros((2, 3), np.uint8), np.zeros((2, 3, 4), np.int16), np.array([{"a": 1}], dtype=object)]
)
def test_anything_but_a_volume_is_refused(tmp_path, content):
    np.save(tmp_path / "a.npy", content)
    with pytest.raises(ValueError, match=r"a\.npy (holds|is not a readable)"):
        open_volume(tmp_path / "a.npy")


def test_archive_and_missing_file_are_refused(tmp_path):
    with (tmp_path / "a.npy").open("wb") as file:
        np.savez(file, volume=np.zeros((2, 3, 4), np.uint8))
    with pytest.raises(ValueError, match=r"a\.npy holds NpzFile"):
        open_volume(tmp_path / "a.npy")
    with pytest.raises(ValueError, match=r"b\.npy is missing"):
        open_volume(tmp_path / "b.npy")


@pytest.mark.parametrize("order", ["C", "F"])
def test_values_are_read_in_their_order(tmp_path, order):
    values = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    np.save(tmp_path / "a.npy", np.asarray(values, order=order))
    np.testing.assert_array_equal(read_volume(tmp_path / "a.npy", (2, 3, 4)), values)


def test_other_size_and_a_file_cut_while_it_is_read_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((2, 3, 4), np.uint8))
    with pytest.raises(BadVolume, match=r"a\.npy is \(2, 3, 4\) voxels, expected \(4, 3, 2\)"):
        read_volume(path, (4, 3, 2))

    def cut_after_opening(path):
        volume = open_volume(path)
        path.write_bytes(path.read_bytes()[:-5])
        return volume

    monkeypatch.setattr("util.data.folder.open_volume", cut_after_opening)
    with pytest.raises(BadVolume, match=r"a\.npy lacks 5 bytes at its end"):
        read_volume(path, (2, 3, 4))


def test_header_with_a_false_size_is_refused(tmp_path):
    with (tmp_path / "a.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (20000,) * 3})
    with pytest.raises(BadVolume, match=r"a\.npy is not a readable"):
        open_volume(tmp_path / "a.npy")


def test_incomplete_subjects_are_found_where_asked(tmp_path):
    for contrast in CONTRASTS:
        volume_path(tmp_path, "a", contrast).parent.mkdir()
    volume_path(tmp_path, "a", "t1").touch()
    with pytest.raises(BadVolume, match='"a" has no t2'):
        find_subjects(tmp_path)
    assert find_subjects(tmp_path, complete=False) == ["a"]


def test_a_folder_without_volumes_is_named(tmp_path):
    for contrast in CONTRASTS:
        (tmp_path / contrast).mkdir()
    with pytest.raises(ValueError, match=r"has no volumes; prepare_data\.py fills such a folder"):
        find_subjects(tmp_path)
