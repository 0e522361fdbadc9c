"""A trained model leaves the project: which weights are meant, and what the written file computes."""

import pytest

from util import cli
from util.checkpoint.__main__ import main


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    monkeypatch.setattr(cli, "setup_logging", lambda: None)


def test_existing_files_and_unknown_forms_are_refused(two_folds, tmp_path):
    (tmp_path / "m.pt2").write_text("precious")
    with pytest.raises(ValueError, match=r"m\.pt2 exists.*--overwrite"):
        main(["export", str(two_folds), str(tmp_path / "m.pt2"), "--fold", "0"])
    with pytest.raises(ValueError, match=r"OUT .*m\.tflite: give a name that ends in one of \.pt2 \(torch\.export\)"):
        main(["export", str(two_folds), str(tmp_path / "m.tflite"), "--fold", "0"])
    assert (tmp_path / "m.pt2").read_text() == "precious"
