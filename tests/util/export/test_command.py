"""A trained model leaves the project: which weights are meant, and what the written file computes."""

from dataclasses import asdict

import pytest

from models import create_model
from tests.conftest import SMALL
from util import cli
from util.checkpoint.__main__ import main
from util.checkpoint.files import save_checkpoint
from util.runs import write_json

NAME = "vim_3d_small_patch8"


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    monkeypatch.setattr(cli, "setup_logging", lambda: None)


@pytest.fixture
def run(tmp_path):
    """A fine-tuning run of two folds with different weights."""
    folder = tmp_path / "run"
    for fold in range(2):
        model = create_model(NAME, **SMALL)
        config = {"kind": "finetune", "model": {"name": NAME, "fields": asdict(model.config)}}
        save_checkpoint(folder / f"fold_{fold}" / "checkpoint-0.pth", {"model": model.state_dict(), "config": config})
        write_json(folder / "config.json", config)
    return folder


def test_existing_files_and_unknown_forms_are_refused(run, tmp_path):
    (tmp_path / "m.pt2").write_text("precious")
    with pytest.raises(ValueError, match=r"m\.pt2 exists.*--overwrite"):
        main(["export", str(run), str(tmp_path / "m.pt2"), "--fold", "0"])
    with pytest.raises(ValueError, match=r"OUT .*m\.tflite: give a name that ends in one of \.pt2 \(torch\.export\)"):
        main(["export", str(run), str(tmp_path / "m.tflite"), "--fold", "0"])
    assert (tmp_path / "m.pt2").read_text() == "precious"
