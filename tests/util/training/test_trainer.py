import itertools
import json
import signal
import time
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import util.process.stopping
from tests.helpers.prepared import make_prepared
from util.checkpoint.loading import read_checkpoint
from util.data.dataset import PreparedVolumes
from util.distributed.world import World
from util.options.groups import TrainingOptions
from util.options.pretrain import DataOptions, PretrainOptions, PretrainRunOptions
from util.process.stopping import Stopped, StopRequest
from util.run_folder import STOPPED
from util.runs import checkpoints, read_metrics
from util.training.loader import train_loader
from util.training.optim import Schedule, Stepper
from util.training.saving import SaveOptions
from util.training.state import TrainingState, average_of
from util.training.trainer import Trainer, make_trainer

WORLD = World(0, 1, torch.device("cpu"))
SGD = partial(torch.optim.SGD, lr=0.1)
LINEAR = partial(nn.Linear, 3, 1)


def squared_error(model, volumes, labels, epoch, step):
    return (model(volumes) - labels).square().mean()


def trainer(
    folder, *, make_model=LINEAR, optimizer=SGD, objective=squared_error, batch_size=2, workers=0,
    epochs=1, accum_iter=1, warmup=0.0, max_bad_steps=2, ema=None, **saving,
):  # fmt: skip
    """Of a small model on 12 items."""
    torch.manual_seed(0)
    model = make_model()
    data = TensorDataset(torch.randn(12, 3), torch.randn(12, 1))
    loader = train_loader(data, batch_size=batch_size, world=WORLD, seed=0, num_workers=workers, pin_memory=False)
    stepper = Stepper(optimizer(model.parameters()), WORLD.device, "fp32", None)
    state = TrainingState(model, stepper, folder, {}, WORLD, average_of(model, ema), SaveOptions(**saving))
    options = TrainingOptions(batch_size=batch_size, accum_iter=accum_iter, epochs=epochs, max_bad_steps=max_bad_steps)
    schedule = Schedule(0.1, 0.0, warmup, 2)
    return Trainer(state, objective, loader, schedule, options, seed=0, log_dir=folder)


# one epoch


def test_accumulated_steps_equal_one_large_step(tmp_path):
    small, large = (trainer(tmp_path, accum_iter=accum, batch_size=6 // accum, warmup=1) for accum in (3, 1))
    for one in (small, large):
        one.train_epoch(0)
    # the same two updates; warm-up gives update 0 the rate 0 and update 1 half the peak in both
    torch.testing.assert_close(small.state.model.weight, large.state.model.weight)


def test_a_last_smaller_group_still_updates(tmp_path):
    rates = []

    def objective(model, volumes, labels, epoch, step):
        rates.append(one.state.stepper.optimizer.param_groups[0]["lr"])
        return squared_error(model, volumes, labels, epoch, step)

    one = trainer(tmp_path, objective=objective, accum_iter=4, warmup=1)  # 6 steps: groups of 4 and 2
    before = one.state.model.weight.detach().clone()
    scalars = one.train_epoch(0)
    assert rates == pytest.approx([0, 0, 0, 0, 0.1 * 4 / 6, 0.1 * 4 / 6])
    assert scalars["grad_norm"] > 0
    assert not torch.equal(one.state.model.weight, before)


def test_scalars_of_an_epoch(tmp_path):
    scalars = trainer(tmp_path, batch_size=4).train_epoch(0)
    assert scalars.keys() == {
        "train_loss", "lr", "grad_norm", "skipped_steps", "samples_per_s", "seconds", "peak_memory_mb",
    }  # fmt: skip
    assert scalars["skipped_steps"] == 0
    assert scalars["samples_per_s"] == pytest.approx(12 / scalars["seconds"])


def test_the_objective_gets_the_input_labels_and_place_of_every_batch(tmp_path):
    seen = []

    def objective(model, volumes, labels, epoch, step):
        seen.append((float(volumes.mean()), tuple(labels.shape), epoch, step))
        return squared_error(model, volumes, labels, epoch, step)

    one = trainer(tmp_path, objective=objective, batch_size=4)
    one.to_input = torch.ones_like
    one.train_epoch(3)
    assert seen == [(1.0, (4, 1), 3, step) for step in range(3)]


class Interrupted(Exception):
    pass


def epoch_of_6_steps(folder, *, start=None, spoilt=None, stop_after=None, **options):
    """Train an epoch with dropout. spoilt: factors by step. start: weights and sums to begin with. stop_after: a step.
    Returns model and scalars."""

    def objective(model, volumes, labels, epoch, step):
        return squared_error(model, volumes, labels, epoch, step) * (spoilt or {}).get(step, 1.0)

    def with_dropout():
        return nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 1))

    one = trainer(folder, make_model=with_dropout, objective=objective, **options)
    if start is not None:
        one.state.model.load_state_dict(start.weights)
        one.state.sums = start.sums

    save_or_stop = one._save_or_stop

    def after_update(sums):
        if sums.step == stop_after:
            interrupted = Interrupted()
            interrupted.weights, interrupted.sums = one.state.model.state_dict(), sums
            raise interrupted
        save_or_stop(sums)

    one._save_or_stop = after_update
    return one.state.model, one.train_epoch(0)


@pytest.mark.parametrize(("workers", "stop_after", "accum_iter"), [(0, 2, 1), (0, 6, 1), (2, 4, 2)])
def test_the_rest_of_an_epoch_is_what_it_would_have_been(tmp_path, workers, stop_after, accum_iter):
    whole, scalars = epoch_of_6_steps(tmp_path, accum_iter=accum_iter)
    with pytest.raises(Interrupted) as cut:
        epoch_of_6_steps(tmp_path, stop_after=stop_after, accum_iter=accum_iter, workers=workers)
    resumed, again = epoch_of_6_steps(tmp_path, start=cut.value, accum_iter=accum_iter, workers=workers)
    assert torch.equal(resumed[1].weight, whole[1].weight)
    for name in ("train_loss", "lr", "grad_norm", "skipped_steps"):
        assert again[name] == scalars[name], name


def test_a_place_between_updates_cannot_be_resumed(tmp_path):
    with pytest.raises(Interrupted) as cut:
        epoch_of_6_steps(tmp_path, stop_after=3)
    with pytest.raises(ValueError, match="--accum_iter 2"):
        epoch_of_6_steps(tmp_path, start=cut.value, accum_iter=2)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30], ids=["nan", "inf", "gradient overflows"])
@pytest.mark.parametrize("optimizer", [SGD, partial(torch.optim.AdamW, lr=0.1, fused=True)], ids=["SGD", "fused"])
def test_a_bad_step_changes_nothing_is_counted_and_its_subjects_named(tmp_path, bad, optimizer, caplog):
    """Spoiling the last step must leave the weights that stopping before it would have left."""
    with pytest.raises(Interrupted) as cut:
        epoch_of_6_steps(tmp_path, stop_after=5, optimizer=optimizer)
    model, scalars = epoch_of_6_steps(tmp_path, spoilt={5: bad}, optimizer=optimizer)
    assert torch.equal(model[1].weight, cut.value.weights["1.weight"])
    assert scalars["skipped_steps"] == 1
    assert scalars["train_loss"] == pytest.approx(float(cut.value.sums.mean_loss())) or bad == 1e30
    assert "epoch 0, step 5: loss or gradient is not finite; update skipped; subjects: " in caplog.text


def test_one_bad_loss_spoils_its_group_of_accumulated_steps(tmp_path, caplog):
    _, scalars = epoch_of_6_steps(tmp_path, spoilt={2: float("inf")}, accum_iter=2)
    assert scalars["skipped_steps"] == 1
    assert "steps 2 to 3" in caplog.text
    assert len(caplog.text.split("subjects: ")[1].split(", ")) == 4


def test_too_many_bad_steps_in_a_row_end_the_run_with_advice(tmp_path):
    epoch_of_6_steps(tmp_path, spoilt=dict.fromkeys((0, 1, 3, 4), float("nan")))  # never three in a row
    with pytest.raises(ValueError, match=r"3 updates in a row.*step 3 \(--max_bad_steps 2\): lower --lr"):
        epoch_of_6_steps(tmp_path, spoilt=dict.fromkeys((1, 2, 3), float("nan")))


# epochs


STEPS = 3


def run(folder, epochs, *, stop_at=None, pause=0.0, stop=None, after_epoch=None, **saving):
    """Epochs of STEPS updates; `stop_at` (epoch, step) raises a signal there. after_epoch: as of Trainer.fit."""

    def objective(model, volumes, labels, epoch, step):
        if (epoch, step) == stop_at:
            signal.raise_signal(signal.SIGUSR1)
        time.sleep(pause)
        return squared_error(model, volumes, labels, epoch, step)

    one = trainer(
        folder, objective=objective, optimizer=partial(torch.optim.AdamW, lr=0.1), batch_size=4, epochs=epochs, **saving
    )
    one.resume("auto")
    try:
        with stop or StopRequest() as request:
            one.fit(request, **({} if after_epoch is None else {"after_epoch": after_epoch}))
    finally:
        one.record.close()
    return one.state


def names(folder):
    return [path.name for path in checkpoints(folder)]


def without_times(rows):
    return [{name: row[name] for name in ("epoch", "train_loss", "lr", "grad_norm", "skipped_steps")} for row in rows]


@pytest.mark.parametrize("place", [(0, 0), (1, 1), (1, 2), (2, 2)])
def test_a_stop_anywhere_and_a_resume_end_where_an_uninterrupted_training_does(tmp_path, place):
    whole = run(tmp_path / "whole", 3, ema=0.5)
    with pytest.raises(Stopped, match=rf"SIGUSR1 at epoch {place[0]}, step {place[1] + 1}; continue with --resume"):
        run(tmp_path / "cut", 3, stop_at=place, ema=0.5)
    assert json.loads((tmp_path / "cut" / STOPPED).read_text())["epoch"] == place[0]
    assert names(tmp_path / "cut")[-1] == f"checkpoint-{place[0]}-step-{place[1] + 1}.pth"
    resumed = run(tmp_path / "cut", 3, ema=0.5)
    assert torch.equal(resumed.model.weight, whole.model.weight)
    assert torch.equal(resumed.model_to_use.weight, whole.model_to_use.weight)
    assert not torch.equal(resumed.model_to_use.weight, resumed.model.weight)
    assert without_times(read_metrics(tmp_path / "cut")) == without_times(read_metrics(tmp_path / "whole"))
    assert not (tmp_path / "cut" / STOPPED).exists()


def test_a_finished_run_resumes_to_nothing(tmp_path):
    run(tmp_path, 2)
    before = (tmp_path / "checkpoint-1.pth").stat().st_mtime_ns
    run(tmp_path, 2)
    assert (tmp_path / "checkpoint-1.pth").stat().st_mtime_ns == before


def test_scalars_after_an_epoch_are_recorded_with_it(tmp_path):
    run(tmp_path, 2, after_epoch=lambda epoch: {"twice": 2.0 * epoch})
    assert [row["twice"] for row in read_metrics(tmp_path)] == [0.0, 2.0]


def test_a_signal_after_the_last_update_of_an_epoch_stops_before_the_next(tmp_path):
    def after_epoch(epoch):
        signal.raise_signal(signal.SIGUSR1)
        return {}

    with pytest.raises(Stopped, match="SIGUSR1 at epoch 1, step 0"):
        run(tmp_path, 3, after_epoch=after_epoch)
    assert names(tmp_path) == ["checkpoint-0.pth"]
    assert [row["epoch"] for row in read_metrics(tmp_path)] == [0]


@pytest.mark.parametrize(
    ("saving", "kept"),
    [({"every": "2"}, [1, 3, 4]), ({"every": "1", "keep_last": 2}, [3, 4]), ({"every": "100"}, [4])],
)
def test_epochs_that_are_saved_and_kept(tmp_path, saving, kept):
    run(tmp_path, 5, **saving)
    assert names(tmp_path) == [f"checkpoint-{epoch}.pth" for epoch in kept]


def test_minutes_save_within_epochs_and_old_places_within_epochs_go(tmp_path):
    run(tmp_path, 2, every="0.0001min", pause=0.01)
    assert [name for name in names(tmp_path) if "step" in name] == ["checkpoint-1-step-3.pth"]
    assert names(tmp_path)[-1] == "checkpoint-1.pth"


def test_a_training_that_is_over_stays_so(tmp_path):
    def fit():
        one = trainer(tmp_path, epochs=5)
        one.resume("auto")
        one.fit(StopRequest(), is_over=lambda epoch: epoch >= 1)
        return one.state.next_epoch

    assert (fit(), names(tmp_path)) == (2, ["checkpoint-1.pth"])
    assert (fit(), names(tmp_path)) == (2, ["checkpoint-1.pth"])


def test_a_time_limit_stops_by_itself(tmp_path, monkeypatch):
    clock = itertools.count()  # a second passes whenever somebody looks
    monkeypatch.setattr(util.process.stopping, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    with pytest.raises(Stopped, match=r"stopped by --max_minutes 0.1 at epoch [1-9]"):
        run(tmp_path, 1000, stop=StopRequest(0.1))
    assert len(names(tmp_path)) >= 1


def test_a_signal_before_the_first_update_stops_before_it(tmp_path):
    stop = StopRequest()
    stop.signal = signal.SIGTERM
    with pytest.raises(Stopped, match="SIGTERM at epoch 0, step 0"):
        run(tmp_path, 2, stop=stop)
    assert names(tmp_path) == []


# made from options


class Mean(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, volumes):
        return self.weight * volumes.mean((1, 2, 3, 4))

    def no_weight_decay(self):
        return []


def made(tmp_path, folder="run", run=None, **training):
    run = PretrainRunOptions(output_dir=tmp_path / "run", **(run or {}))
    options = PretrainOptions(data=DataOptions(num_workers=0), training=TrainingOptions(**training), run=run)
    volumes = PreparedVolumes(make_prepared(tmp_path / "data"), normalize="range")
    return make_trainer(
        Mean(), squared_error, volumes, options, WORLD, folder=tmp_path / folder, config={"kind": "test"},
        precision="fp32", betas=(0.5, 0.75), schedule="constant",
    )  # fmt: skip


def test_a_trainer_is_what_the_options_describe(tmp_path):
    run = {"save_freq": "7min", "keep_last": 3, "on_save_error": "continue", "seed": 5}
    one = made(tmp_path, run=run, batch_size=3, accum_iter=2, blr=0.256, epochs=9, ema=0.5, clip_grad=0.5, min_lr=0.1)
    assert one.schedule == Schedule(0.256 * 3 * 2 / 256, 0.1, 5.0, 9, "constant")
    assert one.state.saving == SaveOptions("7min", 3, "continue")
    assert (one.seed, one.loader.batch_size, one.state.stepper.clip_grad) == (5, 3, 0.5)
    assert one.state.ema is not None
    assert one.state.stepper.optimizer.defaults["betas"] == (0.5, 0.75)
    assert not (tmp_path / "run").exists()  # nothing is written before the run folder is started


def test_events_of_a_fold_lie_in_its_own_part_of_the_log_folder(tmp_path):
    assert made(tmp_path).log_dir == tmp_path / "run"
    logged = made(tmp_path, folder="run/fold_2", run={"log_dir": tmp_path / "logs"})
    assert logged.log_dir == tmp_path / "logs" / "fold_2"


def test_a_trainer_trains_on_the_volumes(tmp_path):
    one = made(tmp_path, batch_size=4, epochs=1, lr=0.5)
    one.resume(None)
    one.fit(StopRequest())
    saved = read_checkpoint(tmp_path / "run" / "checkpoint-0.pth")
    assert saved["config"] == {"kind": "test"}
    assert float(saved["model"]["weight"]) != 1
