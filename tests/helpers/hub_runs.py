"""A pre-training and a fine-tuning run by the real programs, small, for the tests of exported folders."""

from pathlib import Path

import pytest

import main_cr_finetune
import main_pretrain
from tests.helpers.prepared import TINY, make_prepared
from util import cli

SUBJECTS = 12
PRETRAIN = ["--model", "mae_3d_vim_tiny_patch8", "--batch_size", "4", "--epochs", "2", "--seed", "3"]
FINETUNE = ["--model", "vim_3d_tiny_patch8", "--batch_size", "2", "--epochs", "2", "--lr", "1e-3", "--k_fold", "2",
            "--val_fraction", "0.4", "--calibrate", "temperature", "--threshold", "val", "--select", "best_val",
            "--baselines", "sheet"]  # fmt: skip


def make_runs(root: Path) -> Path:
    """root/pretrain, root/idh (two folds, calibrated), root/private_place (data); returns root."""
    data = make_prepared(root / "private_place", count=SUBJECTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "setup_logging", lambda *_: None)
        main_pretrain.main([*PRETRAIN, "--data", str(data), "--output_dir", str(root / "pretrain"), *TINY])
        start = root / "pretrain" / "checkpoint-1.pth"
        main_cr_finetune.main([*FINETUNE, "--finetune", str(start), "--data", str(data), "--output_dir",
                               str(root / "idh"), *TINY])  # fmt: skip
    return root
