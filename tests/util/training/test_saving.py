import pytest

from util.options.groups import frequency
from util.run_folder import checkpoint_path
from util.runs import checkpoints
from util.training.saving import SaveClock, SaveOptions, prune


@pytest.mark.parametrize("text", ["20", "10min", "0.5min", ".5min"])
def test_times_are_epochs_or_minutes(text):
    options = SaveOptions(frequency(text))
    assert (options.epochs is None) != (options.minutes is None)


def test_epochs_that_are_times_to_save():
    assert [epoch for epoch in range(7) if SaveOptions("3").ends_epoch(epoch)] == [2, 5]
    assert not any(SaveOptions("3min").ends_epoch(epoch) for epoch in range(7))


def test_the_clock_restarts_at_every_save():
    assert not SaveClock(None).is_due()
    clock = SaveClock(1.0)
    assert not clock.is_due()
    clock.started -= 61
    assert clock.is_due()
    clock.restart()
    assert not clock.is_due()


@pytest.mark.parametrize(
    ("keep_last", "kept"),
    [(None, [(0, None), (1, None), (2, 8), (2, None)]), (1, [(2, None)]), (3, [(2, 4), (2, 8), (2, None)])],
)
def test_pruning_spares_finished_epochs_unless_told(tmp_path, keep_last, kept):
    places = [(0, None), (1, 4), (1, None), (2, 4), (2, 8), (2, None)]
    for place in places:
        checkpoint_path(tmp_path, *place).touch()
    prune(checkpoint_path(tmp_path, 2), keep_last)
    assert checkpoints(tmp_path) == [checkpoint_path(tmp_path, *place) for place in kept]


def test_pruning_never_deletes_what_was_just_saved(tmp_path):
    for epoch in (3, 8, 9):  # someone went back to epoch 2 by --resume PATH
        checkpoint_path(tmp_path, epoch).touch()
    prune(checkpoint_path(tmp_path, 3), 1)
    assert checkpoints(tmp_path) == [checkpoint_path(tmp_path, epoch) for epoch in (3, 8, 9)]
