import math

import pytest
import torch

from util.training.bad_steps import BadSteps


def watch(limit, norms):
    steps = BadSteps(limit)
    steps.start_epoch(4, lambda steps: [f"subject-{step}" for step in steps])
    for number, norm in enumerate(norms):
        steps.note(range(2 * number, 2 * number + 2), torch.tensor(norm))
    return steps


def test_bad_updates_are_counted_and_named_at_the_next_check_only(caplog):
    steps = watch(5, [1.0, math.nan, 0.0, math.inf])
    assert caplog.text == ""
    assert (steps.check(), steps.check()) == (2, 0)
    assert "epoch 4, steps 2 to 3" in caplog.text
    assert "subject-2, subject-3" in caplog.text
    assert "subject-4" not in caplog.text


def test_the_count_in_a_row_goes_on_over_epochs_and_a_good_update_ends_it():
    steps = watch(2, [math.nan, math.nan])
    steps.check()
    steps.start_epoch(5, lambda steps: [])
    steps.note(range(1), torch.tensor(1.0))
    steps.check()
    for step in range(2):
        steps.note(range(step, step + 1), torch.tensor(math.nan))
    assert steps.check() == 2
    steps.note(range(2, 3), torch.tensor(math.nan))
    with pytest.raises(ValueError, match=r"3 updates in a row, up to epoch 5, step 2 \(--max_bad_steps 2\)"):
        steps.check()
