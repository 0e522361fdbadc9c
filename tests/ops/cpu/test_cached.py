import os
from pathlib import Path

import pytest

from ops.cpu import cached


def _stored(folder: Path, name: str, content: str, purpose: str) -> Path:
    built = folder / f"{name}.tmp"
    built.write_text(content)
    library = folder / f"{name}.so"
    cached.store(built, library, purpose)
    return library


def test_a_stored_library_is_good_and_only_ours_to_write(tmp_path: Path):
    library = _stored(tmp_path, "a", "content", "ours")
    assert cached.is_good(library)
    assert library.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.so"]
    library.chmod(0o720)
    assert not cached.is_good(library)


def test_libraries_of_a_purpose_the_newest_first(tmp_path: Path):
    old, new, other, bad = (_stored(tmp_path, name, name, "ours") for name in ("old", "new", "other", "bad"))
    os.utime(old, (1, 1))
    _stored(tmp_path, "other", "other", "another source")
    bad.write_text("bax")
    assert cached.good_libraries(tmp_path, "ours") == [new, old]
    assert cached.is_good(other)


@pytest.mark.parametrize("record", ["", "{", "[]", "null", '{"size": 7}', '{"size": "7", "sha256": 1}'])
def test_a_record_that_cannot_be_read_fits_nothing(tmp_path: Path, record: str):
    library = _stored(tmp_path, "a", "content", "ours")
    library.with_suffix(".json").write_text(record)
    assert not cached.is_good(library)
    assert cached.good_libraries(tmp_path, "ours") == []


def test_a_folder_that_others_can_write_to_holds_one_for_each_user(tmp_path: Path):
    assert cached.private_folder(tmp_path / "absent") == tmp_path / "absent"
    tmp_path.chmod(0o755)
    assert cached.private_folder(tmp_path) == tmp_path
    tmp_path.chmod(0o775)
    own = cached.private_folder(tmp_path)
    assert own == tmp_path / f"user_{os.geteuid()}"
    (tmp_path / "elsewhere").mkdir()
    own.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError, match="another user"):
        cached.private_folder(tmp_path)


def test_the_lock_is_free_again_and_follows_no_link(tmp_path: Path):
    for _ in range(2):
        with cached.lock(tmp_path / "a.lock"):
            pass
    (tmp_path / "b.lock").symlink_to(tmp_path / "a.lock")
    with pytest.raises(OSError, match=r"b\.lock"), cached.lock(tmp_path / "b.lock"):
        pass
