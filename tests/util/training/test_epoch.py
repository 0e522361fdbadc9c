from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from util.distributed.world import World
from util.training.bad_steps import BadSteps
from util.training.epoch import train_epoch
from util.training.epoch_sums import Tally
from util.training.fit import Inside
from util.training.loader import train_loader
from util.training.optim import Schedule, Stepper

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
    assert stats.keys() == {
        "train_loss", "lr", "grad_norm", "skipped_steps", "samples_per_s", "seconds", "peak_memory_mb",
    }  # fmt: skip
    assert stats["skipped_steps"] == 0
    assert stats["samples_per_s"] == pytest.approx(12 / stats["seconds"])


class Interrupted(Exception):
    pass


def train(*, workers=0, accum_iter=1, inside=None, losses=None, stop_after=None, optimizer=torch.optim.SGD):
    """An epoch of 6 steps with dropout; `losses` (steps to factors) spoil some of them. Returns model, scalars."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 1))
    data = TensorDataset(torch.randn(12, 3), torch.randn(12, 1))
    loader = train_loader(data, batch_size=2, world=WORLD, seed=0, num_workers=workers, pin_memory=False)
    if inside is not None:
        model.load_state_dict(inside.weights)
    stepper = Stepper(optimizer(model.parameters(), lr=0.1), WORLD.device, "fp32", None)
    tally = inside.tally if inside is not None else Tally.empty(WORLD.device)

    def after_update(tally):
        if tally.step == stop_after:
            interrupted = Interrupted()
            interrupted.weights, interrupted.tally = model.state_dict(), tally
            raise interrupted

    stats = train_epoch(
        model, loader,
        lambda model, batch, step: (model(batch[0]) - batch[1]).square().mean() * (losses or {}).get(step, 1.0),
        stepper, Schedule(0.1, 0.0, 0, 1), world=WORLD, epoch=0, seed=0, accum_iter=accum_iter,
        inside=Inside(tally, after_update, BadSteps(2)),
    )  # fmt: skip
    return model, stats


@pytest.mark.parametrize(("workers", "stop_after", "accum_iter"), [(0, 2, 1), (0, 6, 1), (2, 4, 2)])
def test_the_rest_of_an_epoch_is_what_it_would_have_been(workers, stop_after, accum_iter):
    whole, stats = train(accum_iter=accum_iter)
    with pytest.raises(Interrupted) as cut:
        train(stop_after=stop_after, accum_iter=accum_iter, workers=workers)
    resumed, again = train(inside=cut.value, accum_iter=accum_iter, workers=workers)
    assert torch.equal(resumed[1].weight, whole[1].weight)
    for name in ("train_loss", "lr", "grad_norm", "skipped_steps"):
        assert again[name] == stats[name], name


def test_a_place_between_updates_cannot_be_resumed():
    with pytest.raises(Interrupted) as cut:
        train(stop_after=3)
    with pytest.raises(ValueError, match="--accum_iter 2"):
        train(inside=cut.value, accum_iter=2)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30], ids=["nan", "inf", "gradient overflows"])
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, partial(torch.optim.AdamW, fused=True)], ids=["SGD", "fused"])
def test_a_bad_step_changes_nothing_is_counted_and_its_subjects_named(bad, optimizer, caplog):
    """Spoiling the last step must leave the weights that stopping before it would have left."""
    with pytest.raises(Interrupted) as cut:
        train(stop_after=5, optimizer=optimizer)
    model, stats = train(losses={5: bad}, optimizer=optimizer)
    assert torch.equal(model[1].weight, cut.value.weights["1.weight"])
    assert stats["skipped_steps"] == 1
    assert stats["train_loss"] == pytest.approx(float(cut.value.tally.mean_loss())) or bad == 1e30
    assert "epoch 0, step 5: loss or gradient is not finite; update skipped; subjects: " in caplog.text


def test_one_bad_loss_spoils_its_group_of_accumulated_steps(caplog):
    _, stats = train(losses={2: float("inf")}, accum_iter=2)
    assert stats["skipped_steps"] == 1
    assert "steps 2 to 3" in caplog.text
    assert len(caplog.text.split("subjects: ")[1].split(", ")) == 4


def test_too_many_bad_steps_in_a_row_end_the_run_with_advice():
    train(losses=dict.fromkeys((0, 1, 3, 4), float("nan")))  # never three in a row
    with pytest.raises(ValueError, match=r"3 updates in a row.*step 3 \(--max_bad_steps 2\): lower --lr"):
        train(losses=dict.fromkeys((1, 2, 3), float("nan")))
