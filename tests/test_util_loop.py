import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from util.distributed import World
from util.loader import train_loader
from util.loop import train_epoch
from util.optim import Schedule, Stepper

WORLD = World(0, 1, torch.device("cpu"))


def epoch(accum_iter, batch_size, *, scale=1.0, lr=0.1):
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    data = TensorDataset(torch.randn(12, 3), torch.randn(12, 1))
    loader = train_loader(data, batch_size=batch_size, world=WORLD, seed=0, num_workers=0, pin_memory=False)
    rates = []

    def loss_of_batch(model, batch, step):
        rates.append(stepper.optimizer.param_groups[0]["lr"])
        return (model(batch[0]) - batch[1]).square().mean() * scale

    stepper = Stepper(torch.optim.SGD(model.parameters(), lr=lr), torch.device("cpu"), "fp32", None)
    schedule = Schedule(lr, 0.0, 1, 2)
    stats = train_epoch(
        model, loader, loss_of_batch, stepper, schedule, world=WORLD, epoch=0, seed=0, accum_iter=accum_iter
    )
    return model, stats, rates


def test_accumulated_steps_equal_one_large_step():
    small, _, _ = epoch(accum_iter=3, batch_size=2)
    large, _, _ = epoch(accum_iter=1, batch_size=6)
    # the same two updates; warm-up gives update 0 the rate 0 and update 1 half the peak in both
    torch.testing.assert_close(small.weight, large.weight)


def test_a_last_smaller_group_still_updates():
    model, stats, rates = epoch(accum_iter=4, batch_size=2)  # 6 steps: groups of 4 and 2
    assert rates == pytest.approx([0, 0, 0, 0, 0.1 * 4 / 6, 0.1 * 4 / 6])
    assert stats["grad_norm"] > 0
    torch.manual_seed(0)
    assert not torch.equal(model.weight, nn.Linear(3, 1).weight)


def test_scalars_of_an_epoch():
    _, stats, _ = epoch(accum_iter=1, batch_size=4)
    assert stats.keys() == {"train_loss", "lr", "grad_norm", "samples_per_s", "seconds", "peak_memory_mb"}
    assert stats["samples_per_s"] == pytest.approx(12 / stats["seconds"])


def test_a_loss_that_is_not_finite_stops_with_advice():
    with pytest.raises(ValueError, match=r"loss is nan at epoch 0, step 0: lower --lr"):
        epoch(accum_iter=1, batch_size=4, scale=float("nan"))
