import numpy as np
import pytest
from torch import nn

from util.checkpoint.loading import read_checkpoint
from util.protocol.best_epoch import BestEpoch, selected_weights

LABELS = np.array([0, 0, 1, 1])
GOOD, BETTER, BAD = np.array([0.1, 0.4, 0.3, 0.9]), np.array([0.1, 0.2, 0.8, 0.9]), np.array([0.9, 0.8, 0.2, 0.1])


def model(value):
    found = nn.Linear(1, 1)
    nn.init.constant_(found.weight, value)
    return found


def kept(path):
    return float(read_checkpoint(path)["model"]["weight"])


def test_the_best_validation_epoch_is_kept(tmp_path):
    best = BestEpoch(tmp_path, {"k": 1}, patience=None, is_main=True)
    for epoch, found in enumerate([BAD, GOOD, BETTER, GOOD]):
        scalars = best.update(epoch, model(epoch), LABELS, found)
    assert scalars["val_auc"] == pytest.approx(0.75)
    assert (best.epoch, kept(best.path)) == (2, 2)
    assert read_checkpoint(best.path)["config"] == {"k": 1}


def test_of_equal_aucs_the_better_calibrated_one_and_then_the_first(tmp_path):
    best = BestEpoch(tmp_path, {}, patience=None, is_main=True)
    for epoch, found in enumerate([BETTER, BETTER * 0.9, BETTER]):
        best.update(epoch, model(epoch), LABELS, found)
    assert best.epoch == 0


def test_patience_counts_epochs_since_the_best(tmp_path):
    best = BestEpoch(tmp_path, {}, patience=2, is_main=True)
    assert not best.is_over(99)  # nothing seen yet
    best.update(3, model(0), LABELS, GOOD)
    assert [best.is_over(epoch) for epoch in (3, 4, 5)] == [False, False, True]
    assert not BestEpoch(tmp_path, {}, patience=None, is_main=True).is_over(10**6)


def test_a_resumed_run_knows_its_best_and_a_new_one_does_not(tmp_path):
    BestEpoch(tmp_path, {}, patience=None, is_main=True).update(4, model(4), LABELS, BETTER)
    resumed = BestEpoch(tmp_path, {}, patience=None, is_main=True, first_epoch=3)
    resumed.update(4, model(44), LABELS, BETTER)  # the same epoch again: no better than itself
    assert kept(resumed.path) == 4
    new = BestEpoch(tmp_path, {}, patience=None, is_main=True)
    new.update(0, model(7), LABELS, BAD)
    assert kept(new.path) == 7


def test_only_the_main_rank_writes_and_all_decide_alike(tmp_path):
    other = BestEpoch(tmp_path, {}, patience=1, is_main=False)
    other.update(0, model(0), LABELS, GOOD)
    assert not other.path.exists()
    assert (other.epoch, other.is_over(1)) == (0, True)


def test_the_weights_that_are_tested(tmp_path):
    (tmp_path / "checkpoint-3.pth").touch()
    assert selected_weights(tmp_path, "last").name == "checkpoint-3.pth"
    with pytest.raises(ValueError, match=r"holds no best\.pth"):
        selected_weights(tmp_path, "best_val")
    (tmp_path / "best.pth").touch()
    assert selected_weights(tmp_path, "best_val").name == "best.pth"
