"""Opening the model of a run or a checkpoint for export, and errors with the fix."""

import pytest
import torch

from models import create_model
from tests.conftest import SMALL
from tests.util.export.conftest import NAME
from util import cli
from util.checkpoint.__main__ import main
from util.export.trained import open_trained


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    monkeypatch.setattr(cli, "setup_logging", lambda: None)


def test_a_fold_must_be_chosen_where_there_are_several(two_folds, tmp_path):
    with pytest.raises(ValueError, match=r"choose one with --fold, of 0, 1"):
        main(["export", str(two_folds), str(tmp_path / "m.pt2")])
    with pytest.raises(ValueError, match=r"--fold 2: .* has checkpoints of folds 0, 1"):
        main(["export", str(two_folds), str(tmp_path / "m.pt2"), "--fold", "2"])
    heads = [open_trained(two_folds, fold).model.get_classifier().weight for fold in range(2)]
    assert not torch.equal(*heads)
    path = two_folds / "fold_1" / "checkpoint-0.pth"
    assert torch.equal(open_trained(path).model.get_classifier().weight, heads[1])
    with pytest.raises(ValueError, match=r"is a file: leave it out"):
        open_trained(path, 0)
    path.unlink()
    assert torch.equal(open_trained(two_folds).model.get_classifier().weight, heads[0])


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is not a run folder"):
        main(["export", str(tmp_path / "gone"), str(tmp_path / "m.pt2")])
    torch.save(create_model(NAME, **SMALL).state_dict(), tmp_path / "m.pth")
    with pytest.raises(ValueError, match="does not record its model"):
        main(["export", str(tmp_path / "m.pth"), str(tmp_path / "m.pt2")])
