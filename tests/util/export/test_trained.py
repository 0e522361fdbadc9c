"""Opening the model of a run or a checkpoint for export, and errors with the fix."""

from dataclasses import asdict

import pytest
import torch

from models import create_model
from tests.conftest import SMALL
from util import cli
from util.checkpoint.__main__ import main
from util.checkpoint.files import save_checkpoint
from util.export.trained import open_trained
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


def test_a_fold_must_be_chosen_where_there_are_several(run, tmp_path):
    with pytest.raises(ValueError, match=r"choose one with --fold, of 0, 1"):
        main(["export", str(run), str(tmp_path / "m.pt2")])
    with pytest.raises(ValueError, match=r"--fold 2: .* has checkpoints of folds 0, 1"):
        main(["export", str(run), str(tmp_path / "m.pt2"), "--fold", "2"])
    heads = [open_trained(run, fold).model.get_classifier().weight for fold in range(2)]
    assert not torch.equal(*heads)
    path = run / "fold_1" / "checkpoint-0.pth"
    assert torch.equal(open_trained(path).model.get_classifier().weight, heads[1])
    with pytest.raises(ValueError, match=r"is a file: leave it out"):
        open_trained(path, 0)
    path.unlink()
    assert torch.equal(open_trained(run).model.get_classifier().weight, heads[0])


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is not a run folder"):
        main(["export", str(tmp_path / "gone"), str(tmp_path / "m.pt2")])
    torch.save(create_model(NAME, **SMALL).state_dict(), tmp_path / "m.pth")
    with pytest.raises(ValueError, match="does not record its model"):
        main(["export", str(tmp_path / "m.pth"), str(tmp_path / "m.pt2")])
