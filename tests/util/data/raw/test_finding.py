"""Which files below a folder are images: links are followed, what archives add is left out."""

from pathlib import Path

import pytest

from util.data.folder import CONTRASTS
from util.data.raw.finding import image_files, stem, unreadable_files
from util.data.raw.layouts import find_brats, find_by_pattern


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def write(folder: Path, subject: str) -> None:
    touch(folder / subject, *(f"{subject}_{name}.nii.gz" for name in CONTRASTS))


def names(files, root):
    return [str(path.relative_to(root)) for path in files]


def test_images_and_what_is_none(tmp_path):
    images = ["a.nii", "b.nii.gz", "c.mgz", "d.img", "e.IMG.GZ", "f/g.mgh"]
    foreign = ["h.nrrd", "i.hdr", "f/j.mha", "slice.dcm"]
    hidden = [".k.nii", "._a.nii", "__MACOSX/a.nii", ".git/l.nii"]
    touch(tmp_path, *images, *foreign, *hidden, "d.hdr", "e.hdr.gz", "m.nii.txt", "nii")
    assert names(image_files(tmp_path), tmp_path) == sorted(images)
    assert names(unreadable_files(tmp_path), tmp_path) == sorted(foreign)
    assert [stem(name) for name in ("a.nii.gz", "a.b.MGZ", "c")] == ["a", "a.b", "c"]


def test_a_link_to_nothing_is_no_file(tmp_path):
    (tmp_path / "a.nii").symlink_to(tmp_path / "nowhere")
    touch(tmp_path / "b", "c.nii")
    (tmp_path / "d.nii").symlink_to(tmp_path / "b" / "c.nii")  # a link to a file is one
    assert names(image_files(tmp_path), tmp_path) == ["b/c.nii", "d.nii"]
    with pytest.raises(ValueError, match="is not a folder"):
        image_files(tmp_path / "a.nii")


def test_links_to_folders_are_followed_once(tmp_path):
    write(tmp_path / "elsewhere", "A")
    (tmp_path / "raw" / "B").mkdir(parents=True)
    (tmp_path / "raw" / "A").symlink_to(tmp_path / "elsewhere" / "A")
    (tmp_path / "raw" / "again").symlink_to(tmp_path / "raw")  # a circle
    write(tmp_path / "raw", "B")
    (tmp_path / "raw" / "B" / "latest").symlink_to(tmp_path / "raw" / "B")
    for studies in (
        find_brats(tmp_path / "raw"),
        find_by_pattern(tmp_path / "raw", "{subject}/{subject}_{contrast}.nii.gz"),
    ):
        assert [(study.subject, study.problem) for study in studies] == [("A", None), ("B", None)]
