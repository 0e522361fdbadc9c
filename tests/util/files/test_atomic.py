"""Atomic writes."""

import pytest

from util.files.atomic import atomic_write, remove_leftovers


def test_writes_bytes_and_text_and_makes_the_folder(tmp_path):
    with atomic_write(tmp_path / "new" / "a.bin") as file:
        file.write(b"\x00\x01")
    with atomic_write(tmp_path / "new" / "b.txt", "w") as file:
        file.write("größe")
    assert (tmp_path / "new" / "a.bin").read_bytes() == b"\x00\x01"
    assert (tmp_path / "new" / "b.txt").read_text(encoding="utf-8") == "größe"


def test_the_old_file_is_kept_until_the_end(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with atomic_write(path, "w") as file:
        file.write("new")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_a_failure_keeps_the_old_file_and_leaves_nothing_behind(tmp_path, failure):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write_half():
        with atomic_write(path, "w") as file:
            file.write("half")
            raise failure

    with pytest.raises(failure):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_check_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def refuse(written):
        raise OSError(written.read_text())

    with pytest.raises(OSError, match="new"), atomic_write(path, "w", check=refuse) as file:
        file.write("new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_leftovers_of_killed_writers_are_removed_and_nothing_else(tmp_path):
    for name in ("a.txt", ".a.txt.x1.tmp", ".lock"):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"a.txt", ".lock"}


def test_permissions_are_those_of_a_plain_file(tmp_path):
    with atomic_write(tmp_path / "a.txt", "w") as file:
        file.write("x")
    (tmp_path / "plain.txt").write_text("x")
    assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "plain.txt").stat().st_mode
