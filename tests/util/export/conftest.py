"""Shared by the tests of exports."""

from dataclasses import asdict

import pytest

from models import create_model
from tests.conftest import SMALL
from util.checkpoint.files import save_checkpoint
from util.runs import write_json

NAME = "vim_3d_small_patch8"


@pytest.fixture
def two_folds(tmp_path):
    """A fine-tuning run of two folds with different weights."""
    folder = tmp_path / "run"
    for fold in range(2):
        model = create_model(NAME, **SMALL)
        config = {"kind": "finetune", "model": {"name": NAME, "fields": asdict(model.config)}}
        save_checkpoint(folder / f"fold_{fold}" / "checkpoint-0.pth", {"model": model.state_dict(), "config": config})
        write_json(folder / "config.json", config)
    return folder
