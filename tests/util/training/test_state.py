import resource

import pytest
import torch
from torch import nn

from util.checkpoint.loading import read_checkpoint, save_checkpoint
from util.distributed.world import World
from util.runs import checkpoints
from util.training.epoch_sums import EpochSums
from util.training.optim import Stepper
from util.training.saving import SaveOptions
from util.training.state import TrainingState, average_of, newest_readable

WORLD = World(0, 1, torch.device("cpu"))


def training(folder, ema=None, **saving):
    torch.manual_seed(0)
    model = nn.Linear(2, 1)
    stepper = Stepper(torch.optim.AdamW(model.parameters(), lr=0.1), WORLD.device, "fp32", None)
    return TrainingState(model, stepper, folder, {"kind": "test"}, WORLD, average_of(model, ema), SaveOptions(**saving))


def update(t, value):
    t.stepper.backward(t.model(torch.full((1, 2), float(value))).sum())
    t.stepper.step()
    if t.ema is not None:
        t.ema.update(t.model, step=value)


def save_epochs(t, epochs):
    for epoch in range(t.next_epoch, epochs):
        update(t, epoch + 1)
        t.next_epoch, t.sums = epoch + 1, None
        t.save()
    return t


@pytest.mark.parametrize("ema", [None, 0.5])
def test_a_restored_training_goes_on_as_the_one_that_saved(tmp_path, ema):
    first = save_epochs(training(tmp_path, ema), 2)
    second = training(tmp_path, ema)
    second.resume("auto")
    assert second.next_epoch == 2
    for t in (first, second):
        update(t, 7)
    for mine, theirs in ((first.model, second.model), (first.model_to_use, second.model_to_use)):
        for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(a, b)


def test_a_place_within_an_epoch_is_kept_with_its_sums(tmp_path):
    t = save_epochs(training(tmp_path), 1)
    t.sums = EpochSums.empty(WORLD.device)
    t.sums.add(torch.tensor(1 / 3))
    t.sums.lr, t.sums.skipped, t.sums.seconds = 0.25, 2, 1.5
    t.save()
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-0.pth", "checkpoint-1-step-1.pth"]
    again = training(tmp_path)
    again.resume("auto")
    assert again.next_epoch == 1
    assert again.sums is not None
    assert again.sums.plain() == t.sums.plain()
    assert float(again.sums.loss_sum) == float(torch.tensor(1 / 3))


def test_a_place_within_an_epoch_belongs_to_a_number_of_ranks(tmp_path):
    t = training(tmp_path)
    t.sums = EpochSums.empty(WORLD.device)
    t.save()
    path = checkpoints(tmp_path)[0]
    content = read_checkpoint(path)
    save_checkpoint(path, {**content, "tallies": content["tallies"] * 2})
    with pytest.raises(ValueError, match=r"by 2 rank\(s\), now there are 1"):
        training(tmp_path).resume(str(path))


def test_what_cannot_be_resumed_is_said(tmp_path):
    torch.save({"model": nn.Linear(2, 1).state_dict()}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="weights only"):
        training(tmp_path).resume(str(tmp_path / "weights.pth"))
    save_epochs(training(tmp_path, ema=0.5), 1)
    with pytest.raises(ValueError, match="with --ema"):
        training(tmp_path).resume("auto")
    with pytest.raises(ValueError, match="between 0 and 1"):
        average_of(nn.Linear(1, 1), 1.0)


def test_the_average_is_what_is_evaluated_and_saved(tmp_path):
    t = save_epochs(training(tmp_path, ema=0.5), 4)
    saved = torch.load(tmp_path / "checkpoint-3.pth", weights_only=True)
    assert torch.equal(saved["model"]["weight"], t.model_to_use.weight)
    assert torch.equal(saved["raw_model"]["weight"], t.model.weight)
    assert not torch.equal(saved["model"]["weight"], saved["raw_model"]["weight"])


def truncate(data):
    return data[: len(data) // 2]


def flip_a_bit(data):
    place = len(data) // 2
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def test_a_float32_training_can_go_on_with_a_scaled_loss(tmp_path):
    """As one does that was asked for fp16 on a CPU and is resumed on a GPU."""
    save_epochs(training(tmp_path), 1)
    again = training(tmp_path)
    again.stepper = Stepper(again.stepper.optimizer, WORLD.device, "fp16", None)
    again.resume("auto")
    assert again.next_epoch == 1
    assert again.stepper.scaler.get_scale() > 1


@pytest.mark.parametrize(
    "damage",
    [truncate, flip_a_bit, lambda data: b"", lambda data: data[:-1], lambda data: data[:-74]],
    ids=["truncated", "one bit flipped", "empty", "one byte short", "seal cut off"],
)
def test_a_damaged_checkpoint_is_put_aside_and_the_one_before_it_used(tmp_path, damage, caplog):
    save_epochs(training(tmp_path), 2)
    newest = tmp_path / "checkpoint-1.pth"
    newest.write_bytes(damage(newest.read_bytes()))
    again = training(tmp_path)
    again.resume("auto")
    assert again.next_epoch == 1
    assert "checkpoint-1.pth" in caplog.text
    assert "trying the one before it" in caplog.text
    assert (tmp_path / "checkpoint-1.pth.damaged").exists()
    save_epochs(again, 2)
    assert newest_readable(tmp_path) == newest


def test_no_readable_checkpoint_is_an_error_and_none_at_all_is_a_start(tmp_path):
    assert newest_readable(tmp_path) is None
    (tmp_path / "checkpoint-3.pth").write_bytes(b"x")
    with pytest.raises(ValueError, match="none of the 1 checkpoints"):
        training(tmp_path).resume("auto")


def test_leftovers_of_a_killed_save_are_removed(tmp_path):
    save_epochs(training(tmp_path), 1)
    (tmp_path / ".checkpoint-1.pth.abc.tmp").write_bytes(b"half")
    training(tmp_path).resume("auto")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-0.pth"]


@pytest.fixture
def full_disk():
    """No file of this process may grow beyond a few hundred bytes while the fixture's function is on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda on: resource.setrlimit(resource.RLIMIT_FSIZE, (500 if on else soft, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_failed_save_stops_or_goes_on_as_asked_and_destroys_nothing(tmp_path, full_disk, caplog):
    t = save_epochs(training(tmp_path, keep_last=1), 1)
    before = (tmp_path / "checkpoint-0.pth").read_bytes()
    full_disk(True)
    with pytest.raises(
        OSError, match=r"checkpoint-1.pth cannot be written .*File too large.*newest.* checkpoint-0.pth"
    ):
        save_epochs(t, 2)
    t.saving = SaveOptions(keep_last=1, on_error="continue")
    save_epochs(t, 3)
    assert "the training goes on" in caplog.text
    full_disk(False)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"checkpoint-0.pth": before}
    save_epochs(t, 4)
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-3.pth"]


@pytest.mark.parametrize("ema", [None, 0.5])
def test_weights_that_are_not_finite_are_never_saved(tmp_path, ema):
    t = save_epochs(training(tmp_path, ema), 1)
    with torch.no_grad():
        t.model_to_use.bias[0] = float("nan")
    t.next_epoch = 2
    with pytest.raises(
        ValueError, match=r"1 of \d tensors .* first is (ema\.)?bias; .* the newest checkpoint is checkpoint-0\.pth"
    ):
        t.save()
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-0.pth"]
