"""In a checkout, config.ini and runs/ are looked for beside the code, whatever the working folder."""

from pathlib import Path

from util import project


def test_a_checkout_is_its_own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not project.IS_INSTALLED
    assert Path(__file__).resolve().parents[2] == project.FOLDER
    assert (project.FOLDER / "config.ini").is_file()
