"""A cohort of phantoms: independent of its size, continued by another call, one setting per folder."""

import pytest

from util.data.folder import LABEL_SHEET
from util.data.labels import read_labels
from util.data.phantom.cohort import write_phantoms
from util.data.phantom.study import study_files

OPTIONS = {"seed": 3, "spacing": 4.0}


def test_a_larger_cohort_keeps_what_is_there(tmp_path):
    write_phantoms(tmp_path / "small", ["egd"], subjects=1, **OPTIONS)
    path = study_files("egd", 0, tmp_path / "small" / "egd")["t2"]
    before = (path.read_bytes(), path.stat().st_mtime_ns)
    write_phantoms(tmp_path / "small", ["egd"], subjects=2, **OPTIONS)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert len(read_labels(tmp_path / "small" / "egd" / LABEL_SHEET, "IDH")) == 2
    write_phantoms(tmp_path / "large", ["egd"], subjects=2, **OPTIONS)
    assert study_files("egd", 0, tmp_path / "large" / "egd")["t2"].read_bytes() == before[0]


def test_missing_file_is_made_again_and_overwrite_makes_all(tmp_path):
    write_phantoms(tmp_path, ["brats"], subjects=1, **OPTIONS)
    files = study_files("brats", 0, tmp_path / "brats")
    files["seg"].unlink()
    write_phantoms(tmp_path, ["brats"], subjects=1, **OPTIONS)
    assert files["seg"].exists()
    before = files["t1"].stat().st_mtime_ns
    write_phantoms(tmp_path, ["brats"], subjects=1, overwrite=True, **OPTIONS)
    assert files["t1"].stat().st_mtime_ns > before
    assert not (tmp_path / "egd").exists()


def test_other_seed_or_spacing_needs_overwrite(tmp_path):
    write_phantoms(tmp_path, ["brats"], subjects=1, **OPTIONS)
    with pytest.raises(ValueError, match=r"holds phantoms of .*use --overwrite"):
        write_phantoms(tmp_path, ["brats"], subjects=1, seed=4, spacing=4.0)
    write_phantoms(tmp_path, ["brats"], subjects=1, seed=4, spacing=4.0, overwrite=True)


def test_marker_strength_is_part_of_a_folder(tmp_path):
    write_phantoms(tmp_path, ["brats"], subjects=1, **OPTIONS)
    path = study_files("brats", 0, tmp_path / "brats")["t1ce"]
    before, note = path.read_bytes(), tmp_path / "brats" / "phantoms.json"
    note.write_text('{"seed": 3, "spacing": 4.0}')  # as written before there was a marker strength
    write_phantoms(tmp_path, ["brats"], subjects=1, **OPTIONS)
    with pytest.raises(ValueError, match=r"holds phantoms of .*use --overwrite"):
        write_phantoms(tmp_path, ["brats"], subjects=1, marker_strength=0.5, **OPTIONS)
    write_phantoms(tmp_path, ["brats"], subjects=1, marker_strength=0.5, overwrite=True, **OPTIONS)
    assert path.read_bytes() != before


@pytest.mark.parametrize(
    ("changed", "flag"),
    [({"subjects": 0}, "--subjects"), ({"seed": -1}, "--seed"), ({"marker_strength": 1.1}, "--marker_strength")],
)
def test_flags_are_checked(tmp_path, changed, flag):
    with pytest.raises(ValueError, match=flag):
        write_phantoms(tmp_path, ["egd"], **{"subjects": 1, **OPTIONS, **changed})
    assert not list(tmp_path.iterdir())
