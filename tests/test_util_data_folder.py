"""The prepared folder's names, and files that are opened without being read or trusted."""

import numpy as np
import pytest

from util.data.folder import CONTRASTS, find_subjects, open_volume, read_header, segmentation_path, volume_path


def test_names_are_the_papers(tmp_path):
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
