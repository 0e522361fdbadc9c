import math

import torch

from util.training.epoch_sums import EpochSums

CPU = torch.device("cpu")


def test_the_mean_is_that_of_the_finite_losses():
    sums = EpochSums.empty(CPU)
    assert math.isnan(sums.mean_loss())
    for loss in (1.0, math.nan, 3.0, math.inf):
        sums.add(torch.tensor(loss))
    assert float(sums.mean_loss()) == 2.0
    assert sums.step == 4


def test_numbers_and_back_are_exact():
    sums = EpochSums.empty(CPU)
    for _ in range(3):
        sums.add(torch.tensor(0.1))
    sums.norm, sums.seconds, sums.samples = torch.tensor(1 / 3), 0.7, 12
    assert EpochSums.from_plain(sums.plain(), CPU).plain() == sums.plain()
    assert torch.equal(EpochSums.from_plain(sums.plain(), CPU).mean_loss(), sums.mean_loss())
