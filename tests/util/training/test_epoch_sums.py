import math

import torch

from util.training.epoch_sums import Tally

CPU = torch.device("cpu")


def test_the_mean_is_that_of_the_finite_losses():
    tally = Tally.empty(CPU)
    assert math.isnan(tally.mean_loss())
    for loss in (1.0, math.nan, 3.0, math.inf):
        tally.add(torch.tensor(loss))
    assert float(tally.mean_loss()) == 2.0
    assert tally.step == 4


def test_numbers_and_back_are_exact():
    tally = Tally.empty(CPU)
    for _ in range(3):
        tally.add(torch.tensor(0.1))
    tally.norm, tally.seconds, tally.samples = torch.tensor(1 / 3), 0.7, 12
    assert Tally.from_plain(tally.plain(), CPU).plain() == tally.plain()
    assert torch.equal(Tally.from_plain(tally.plain(), CPU).mean_loss(), tally.mean_loss())
