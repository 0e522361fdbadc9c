import itertools
import json
import signal
import time
from types import SimpleNamespace

import pytest
import torch

import util.process.stopping
from tests.util.training.test_state import training, update
from util.process.stopping import Stopped, StopRequest
from util.runs import STOPPED_FILE, checkpoints, read_metrics
from util.training.fit import fit
from util.training.record import Record

STEPS = 3


def run(folder, epochs, *, resume="auto", stop_at=None, pause=0.0, stop=None, **saving):
    """Epochs of STEPS updates whose values depend on epoch and step; `stop_at` (epoch, step) raises a signal there."""
    t = training(folder, **saving)
    t.resume(resume)
    record = Record(folder, folder, is_main=True, first_epoch=t.next_epoch)

    def epoch_of(epoch, inside):
        for step in range(inside.tally.step, STEPS):
            if (epoch, step) == stop_at:
                signal.raise_signal(signal.SIGUSR1)
            time.sleep(pause)
            update(t, 1 + epoch * STEPS + step)
            inside.tally.add(torch.tensor(float(step)))
            inside.after_update(inside.tally)
        return {"train_loss": float(inside.tally.mean_loss())}

    try:
        with stop or StopRequest() as request:
            fit(t, epoch_of, epochs=epochs, record=record, stop=request)
    finally:
        record.close()
    return t


def names(folder):
    return [path.name for path in checkpoints(folder)]


@pytest.mark.parametrize("place", [(0, 0), (1, 1), (1, 2), (2, 2)])
def test_a_stop_anywhere_and_a_resume_end_where_an_uninterrupted_training_does(tmp_path, place):
    whole = run(tmp_path / "whole", 3)
    with pytest.raises(Stopped, match=rf"SIGUSR1 at epoch {place[0]}, step {place[1] + 1}; continue with --resume"):
        run(tmp_path / "cut", 3, stop_at=place)
    assert json.loads((tmp_path / "cut" / STOPPED_FILE).read_text())["epoch"] == place[0]
    assert names(tmp_path / "cut")[-1] == f"checkpoint-{place[0]}-step-{place[1] + 1}.pth"
    resumed = run(tmp_path / "cut", 3)
    assert torch.equal(resumed.model.weight, whole.model.weight)
    assert read_metrics(tmp_path / "cut") == read_metrics(tmp_path / "whole")
    assert not (tmp_path / "cut" / STOPPED_FILE).exists()


def test_a_finished_run_resumes_to_nothing(tmp_path):
    run(tmp_path, 2)
    before = (tmp_path / "checkpoint-1.pth").stat().st_mtime_ns
    run(tmp_path, 2)
    assert (tmp_path / "checkpoint-1.pth").stat().st_mtime_ns == before


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
