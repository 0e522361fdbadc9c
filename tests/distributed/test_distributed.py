"""Two gloo ranks under torchrun give the results of one process with the same global batch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.prepared import TINY, make_prepared
from util.evaluation.predictions import read_predictions
from util.runs import read_metrics

ROOT = Path(__file__).resolve().parents[2]
SAME = ["--no_augment", "--drop_path", "0", "--epochs", "2", "--lr", "1e-3", "--warmup_epochs", "1", "--threads", "1"]


def launch(script, *options, ranks):
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"] if ranks > 1 else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, *launcher, script, *TINY, *map(str, options)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.slow
def test_two_ranks_pretrain_like_one(tmp_path):
    data = make_prepared(tmp_path / "data")
    for ranks, batch in ((1, 4), (2, 2)):
        launch("main_pretrain.py", "--data", data, "--model", "mae_3d_vim_tiny_patch8", "--batch_size", batch,
               "--output_dir", tmp_path / str(ranks), "--picture_freq", 0, *SAME, ranks=ranks)  # fmt: skip
    one, two = (read_metrics(tmp_path / str(ranks)) for ranks in (1, 2))
    assert [row["train_loss"] for row in two] == pytest.approx([row["train_loss"] for row in one], rel=1e-5)
    assert len(one) == 2


@pytest.mark.slow
def test_two_ranks_finetune_like_one(tmp_path):
    data = make_prepared(tmp_path / "data")
    for ranks, batch in ((1, 4), (2, 2)):
        launch("main_cr_finetune.py", "--data", data, "--model", "vim_3d_tiny_patch8", "--batch_size", batch,
               "--k_fold", 2, "--output_dir", tmp_path / str(ranks), *SAME, ranks=ranks)  # fmt: skip
    one, two = (read_predictions(tmp_path / str(ranks) / "predictions.csv") for ranks in (1, 2))
    assert [(p.subject, p.fold, p.label) for p in one] == [(p.subject, p.fold, p.label) for p in two]
    assert len({p.subject for p in two}) == len(two) == 11  # every known subject counted once
    assert [p.probability for p in two] == pytest.approx([p.probability for p in one], abs=1e-5)


@pytest.mark.slow
def test_more_ranks_than_data_are_refused(tmp_path):
    data = make_prepared(tmp_path / "data", count=3)
    with pytest.raises(AssertionError, match=r"on 2 rank\(s\) needs 8 subjects, the training data has 3"):
        launch("main_pretrain.py", "--data", data, "--model", "mae_3d_vim_tiny_patch8", "--batch_size", 4,
               "--output_dir", tmp_path / "run", ranks=2)  # fmt: skip
    assert not (tmp_path / "run").exists()
