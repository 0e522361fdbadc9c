import pytest
import torch
from torch import nn

from util.distributed import World
from util.optim import Stepper
from util.record import Record, read_metrics
from util.runs import checkpoints
from util.training import Training, average_of, fit


def training(folder, ema=None):
    model = nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    stepper = Stepper(optimizer, torch.device("cpu"), "fp32", None)
    return Training(model, stepper, folder, {"kind": "test"}, average_of(model, ema))


def run(t, epochs, folder, save_freq=2):
    record = Record(folder, folder, is_main=True, first_epoch=(first := t.resume("auto")))

    def epoch_of(epoch):
        t.stepper.backward(t.model(torch.full((1, 2), float(epoch + 1))).sum())
        t.stepper.step()
        if t.ema is not None:
            t.ema.update(t.model, step=epoch)
        return {"train_loss": float(epoch)}

    world = World(0, 1, torch.device("cpu"))
    fit(t, epoch_of, first_epoch=first, epochs=epochs, save_freq=save_freq, world=world, record=record)
    record.close()
    return t


@pytest.mark.parametrize("ema", [None, 0.5])
def test_a_resumed_training_ends_where_an_uninterrupted_one_does(tmp_path, ema):
    torch.manual_seed(0)
    whole = run(training(tmp_path / "a", ema), 5, tmp_path / "a")
    torch.manual_seed(0)
    run(training(tmp_path / "b", ema), 3, tmp_path / "b")
    resumed = run(training(tmp_path / "b", ema), 5, tmp_path / "b")
    for mine, theirs in ((whole.model, resumed.model), (whole.best_known, resumed.best_known)):
        for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(a, b)
    assert [row["epoch"] for row in read_metrics(tmp_path / "b")] == [0, 1, 2, 3, 4]
    assert [p.name for p in checkpoints(tmp_path / "a")] == [f"checkpoint-{n}.pth" for n in (1, 3, 4)]


def test_a_finished_run_resumes_to_nothing(tmp_path):
    run(training(tmp_path), 2, tmp_path)
    before = (tmp_path / "checkpoint-1.pth").stat().st_mtime_ns
    run(training(tmp_path), 2, tmp_path)
    assert (tmp_path / "checkpoint-1.pth").stat().st_mtime_ns == before


def test_what_cannot_be_resumed_is_said(tmp_path):
    torch.save({"model": nn.Linear(2, 1).state_dict()}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="weights only"):
        training(tmp_path).resume(str(tmp_path / "weights.pth"))
    run(training(tmp_path, ema=0.5), 1, tmp_path)
    with pytest.raises(ValueError, match="with --ema"):
        training(tmp_path).resume("auto")
    with pytest.raises(ValueError, match="between 0 and 1"):
        average_of(nn.Linear(1, 1), 1.0)


def test_the_average_is_what_is_evaluated_and_saved(tmp_path):
    t = run(training(tmp_path, ema=0.5), 4, tmp_path)
    saved = torch.load(tmp_path / "checkpoint-3.pth", weights_only=True)
    assert torch.equal(saved["model"]["weight"], t.best_known.weight)
    assert torch.equal(saved["raw_model"]["weight"], t.model.weight)
    assert not torch.equal(saved["model"]["weight"], saved["raw_model"]["weight"])
