"""The cohort: subjects without a known label are left out and counted."""

import pytest

from tests.helpers.prepared import make_prepared
from util.data.cohort import load_cohort
from util.data.folder import LABEL_SHEET


def test_unknown_subjects_are_left_out_and_counted(tmp_path, caplog):
    root = make_prepared(tmp_path, count=6, unknown=2)
    with caplog.at_level("INFO", "util.data.cohort"):
        cohort = load_cohort(root, "IDH", normalize="range")
    assert cohort.volumes.subjects == ["sub-00", "sub-01", "sub-02", "sub-03"]
    assert cohort.labels == {"sub-00": 0, "sub-01": 1, "sub-02": 0, "sub-03": 1}
    assert (cohort.n_unknown, cohort.sheet, cohort.volumes.normalize) == (2, root / LABEL_SHEET, "range")
    assert cohort.volumes[1][1] == 1
    assert "4 subjects with a known label, 2 unknown left out" in caplog.text


def test_another_sheet_is_read(tmp_path):
    root = make_prepared(tmp_path / "data", count=6, unknown=0)
    other = make_prepared(tmp_path / "other", count=6, unknown=3) / LABEL_SHEET
    assert load_cohort(root, "IDH", sheet=other, normalize="zscore").n_unknown == 3
    with pytest.raises(ValueError, match="nowhere"):
        load_cohort(root, "IDH", sheet=tmp_path / "nowhere.xlsx", normalize="zscore")
