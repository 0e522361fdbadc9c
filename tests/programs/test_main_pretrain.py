import json
import os
import signal
from functools import partial

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import main_pretrain
from main_pretrain import main
from models import create_model
from tests.helpers.prepared import SIDE, TINY, make_prepared
from util.checkpoint.loading import load_weights
from util.data.dataset import PreparedVolumes
from util.process.stopping import STOPPED
from util.runs import checkpoints, read_config, read_metrics
from util.training.precision import precision_of_run
from util.training.trainer import Trainer

NAME = "mae_3d_vim_tiny_patch8"


@pytest.fixture(autouse=True)
def half_precision_pays(monkeypatch):
    """Whatever this CPU is."""
    assume_products(monkeypatch, 0.5)


def assume_products(monkeypatch, factor):
    """Half precision's products take `factor` times float32's."""
    monkeypatch.setattr(main_pretrain, "precision_of_run", partial(precision_of_run, measure=lambda name: factor))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_prepared(tmp_path_factory.mktemp("data"))


def pretrain(data, out, *options, epochs=2):
    main(["--model", NAME, "--data", str(data), "--batch_size", "4", "--epochs", str(epochs), "--warmup_epochs", "1",
          "--lr", "1e-3", "--output_dir", str(out), *TINY, *options])  # fmt: skip


def weights(out, epoch=1):
    return torch.load(out / f"checkpoint-{epoch}.pth", weights_only=True)["model"]


def test_a_run_folder_is_enough_to_repeat_and_use_the_run(data, tmp_path):
    pretrain(data, tmp_path / "run", "--norm_pix_loss", "--picture_freq", "2", "--log_dir", str(tmp_path / "tb"))
    config = read_config(tmp_path / "run")
    assert config["args"]["norm_pix_loss"] is True
    model = create_model(config["model"]["name"], **config["model"]["fields"])
    assert load_weights(model, tmp_path / "run" / "checkpoint-1.pth")["epoch"] == 1
    rows = read_metrics(tmp_path / "run")
    assert [row["epoch"] for row in rows] == [0, 1]
    assert rows[0]["baseline_loss"] > 0
    events = EventAccumulator(str(tmp_path / "tb")).Reload()
    assert len(events.Scalars("train_loss")) == 2
    assert events.Images("input | masked | reconstruction")[0].step == 1


def test_resuming_gives_the_weights_of_an_uninterrupted_run(data, tmp_path):
    pretrain(data, tmp_path / "whole", "--save_freq", "1", epochs=3)
    pretrain(data, tmp_path / "whole2", "--save_freq", "1", epochs=3)
    (tmp_path / "whole2" / "checkpoint-2.pth").unlink()
    pretrain(data, tmp_path / "whole2", "--resume", "auto", epochs=3)
    a, b = weights(tmp_path / "whole", 2), weights(tmp_path / "whole2", 2)
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert [row["epoch"] for row in read_metrics(tmp_path / "whole2")] == [0, 1, 2]


def test_a_time_limit_ends_the_program_with_its_code_and_a_resume_finishes_it(data, tmp_path):
    pretrain(data, tmp_path / "whole", epochs=3)
    with pytest.raises(SystemExit) as stopped:
        pretrain(data, tmp_path / "cut", "--max_minutes", "1e-9", epochs=3)
    assert stopped.value.code == STOPPED
    assert (tmp_path / "cut" / "stopped.json").exists()
    pretrain(data, tmp_path / "cut", "--resume", "auto", epochs=3)
    a, b = weights(tmp_path / "whole", 2), weights(tmp_path / "cut", 2)
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_checkpoints_are_as_many_and_as_often_as_asked(data, tmp_path):
    pretrain(data, tmp_path, "--save_freq", "1", "--keep_last", "2", epochs=4)
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-2.pth", "checkpoint-3.pth"]
    pretrain(data, tmp_path / "minutes", "--save_freq", "1000000min", epochs=2)
    assert [path.name for path in checkpoints(tmp_path / "minutes")] == ["checkpoint-1.pth"]


def test_numbers_that_are_not_finite_are_borne_as_long_as_asked(data, tmp_path, capsys):
    with pytest.raises(ValueError, match=r"3 updates in a row.*--max_bad_steps 2"):
        pretrain(data, tmp_path, "--lr", "100", "--warmup_epochs", "0", "--max_bad_steps", "2", epochs=4)
    assert "subjects: sub-" in capsys.readouterr().err


@pytest.fixture(scope="module")
def plain_weights(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("plain")
    pretrain(data, out)
    return weights(out)


@pytest.mark.parametrize(
    "options",
    [["--seed", "1"], ["--mask_ratio", "0.5"], ["--norm_pix_loss"], ["--no_augment"], ["--normalize", "range"],
     ["--augment", "loader"], ["--drop_path", "0.5"], ["--accum_iter", "3"], ["--clip_grad", "0.001"],
     ["--weight_decay", "10"], ["--min_lr", "1e-3"], ["--warmup_epochs", "2"], ["--lr", "1e-2"], ["--ema", "0.9"],
     ["--precision", "bf16"], ["--fidelity", "paper"], ["--batch_size", "3"],
     ["--scan_order", "hilbert"], ["--scan_order", "shuffle"], ["--masking", "block"], ["--masking", "grid"],
     ["--objective", "ar"], ["--contrast_dropout", "0.5"]],
    ids=lambda options: " ".join(options),
)  # fmt: skip
def test_every_training_option_has_an_effect(data, tmp_path, plain_weights, options):
    pretrain(data, tmp_path, *options)
    changed = weights(tmp_path)
    key = "blocks.1.mixer.in_proj.weight"
    assert not torch.equal(changed[key], plain_weights[key])
    assert changed[key].isfinite().all()


@pytest.mark.parametrize("asked", ["bf16", "fp16"])
def test_half_precision_that_does_not_pay_is_float32_and_stays_so_when_resumed(
    data, tmp_path, plain_weights, monkeypatch, capsys, asked
):
    assume_products(monkeypatch, 6.25)
    pretrain(data, tmp_path, "--precision", asked, "--save_freq", "1")
    record = read_config(tmp_path)["precision"]
    assert (record["asked"], record["used"], record["factor"]) == (asked, "fp32", 6.25)
    assert torch.load(tmp_path / "checkpoint-1.pth", weights_only=True)["config"]["precision"] == record
    assert capsys.readouterr().err.count("6.2 times as long as float32's") == 1
    assert all(torch.equal(value, plain_weights[key]) for key, value in weights(tmp_path).items())

    assume_products(monkeypatch, 0.5)  # as a measurement of another moment may have it
    (tmp_path / "checkpoint-1.pth").unlink()
    pretrain(data, tmp_path, "--precision", asked, "--resume", "auto")
    assert read_config(tmp_path)["precision"] == record
    assert all(torch.equal(value, plain_weights[key]) for key, value in weights(tmp_path).items())

    (tmp_path / "elsewhere").mkdir()
    pretrain(
        data,
        tmp_path / "elsewhere",
        "--precision",
        asked,
        "--resume",
        str(tmp_path / "checkpoint-1.pth"),
        "--override",
        epochs=3,
    )
    assert read_config(tmp_path / "elsewhere")["precision"] == record
    pretrain(data, tmp_path, "--precision", asked, "--overwrite", epochs=1)
    assert read_config(tmp_path)["precision"]["factor"] == 0.5  # a new run


@pytest.mark.parametrize(
    "options",
    [
        ["--num_workers", "2"],
        ["--save_freq", "0.0001min"],
        ["--use_3d"],
        ["--use_z_score"],
        ["--no_pin_men"],
        ["--grad_checkpointing"],
        ["--threads", "1"],
    ],
)
def test_options_that_must_not_change_the_result(data, tmp_path, plain_weights, options):
    pretrain(data, tmp_path, *options)
    for key, value in weights(tmp_path).items():
        torch.testing.assert_close(value, plain_weights[key])


def test_blr_scales_with_the_batch(data, tmp_path):
    main(["--model", NAME, "--data", str(data), "--batch_size", "4", "--accum_iter", "3", "--epochs", "1", *TINY,
          "--warmup_epochs", "0", "--blr", "0.32", "--output_dir", str(tmp_path)])  # fmt: skip
    assert read_metrics(tmp_path)[0]["lr"] == pytest.approx(0.32 * 12 / 256)  # one update, at the peak of the cosine


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--model", "mae_3d_vim_tny_patch8"], "did you mean 'mae_3d_vim_tiny_patch8'"),
     (["--model", "vim_3d_tiny_patch8"], "is a classifier"),
     (["--input_size", "32"], f"pass --input_size {SIDE}"),
     (["--batch_size", "40"], "--batch_size 40"),
     (["--model_kwargs", "embed_dims=12"], "did you mean 'embed_dim'"),
     (["--model_kwargs", "patch_size=5"], "Z=16 is not divisible by patch_size=5"),
     (["--data", "nowhere"], "--data nowhere"),
     (["--config", "nowhere.ini"], "nowhere.ini"),
     (["--scan_order", "hilbrt"], "did you mean 'hilbert'"),
     (["--masking", "blok"], "did you mean 'block'"),
     (["--fidelity", "paper", "--scan_order", "snake"], 'scan_order="snake" does not go with fidelity="paper"'),
     (["--objective", "ar", "--fidelity", "paper"], 'choose fidelity="corrected"'),
     (["--objective", "ar", "--scan_order", "shuffle"], "no next token"),
     (["--objective", "ar", "--model_kwargs", "directions=both"], 'needs a causal mixer, directions="forward"'),
     (["--objective", "ar", "--mask_ratio", "0.5"], "--mask_ratio 0.5: --objective ar removes no patches"),
     (["--objective", "ar", "--masking", "grid"], "--masking grid: --objective ar removes no patches"),
     (["--objective", "ar", "--model", "vim_3d_tiny_patch8"], "is a classifier"),
     (["--model", "ar_3d_vim_tiny_patch8"], "pass --objective ar"),
     (["--resume", "nowhere.pth"], "nowhere.pth does not exist")],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_wrong_options_are_named(data, tmp_path, options, message):
    words = [
        "--model",
        NAME,
        *([] if "--config" in options else ["--data", str(data)]),
        "--output_dir",
        str(tmp_path / "run"),
    ]
    with pytest.raises(ValueError, match=message):
        main([*words, "--batch_size", "4", "--epochs", "1", *TINY, *options])


@pytest.mark.parametrize("name", [NAME, "ar_3d_vim_tiny_patch8"])
def test_an_autoregressive_run_is_recorded_resumed_and_shown(data, tmp_path, name):
    options = ["--objective", "ar", "--model", name, "--scan_order", "xyz", "--save_freq", "1", "--picture_freq", "1"]
    pretrain(data, tmp_path, *options)
    config = read_config(tmp_path)
    assert (config["objective"], config["mask_ratio"]) == ("ar", None)
    assert config["model"]["name"] == "ar_3d_vim_tiny_patch8"
    assert config["model"]["fields"]["scan_order"] == "xyz"
    assert config["model"]["fields"]["directions"] == "forward"
    model = create_model(config["model"]["name"], **config["model"]["fields"])
    load_weights(model, tmp_path / "checkpoint-1.pth")
    assert read_metrics(tmp_path)[1]["baseline_loss"] > 0
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [image.step for image in events.Images("input | masked | reconstruction")] == [0, 1]
    last = weights(tmp_path)
    (tmp_path / "checkpoint-1.pth").unlink()
    pretrain(data, tmp_path, *options, "--resume", "auto")
    assert all(torch.equal(value, last[key]) for key, value in weights(tmp_path).items())


def test_a_second_run_does_not_replace_the_first_unasked(data, tmp_path):
    pretrain(data, tmp_path, epochs=1)
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(ValueError, match="already holds a run"):
        pretrain(data, tmp_path, epochs=1)
    assert (tmp_path / "config.json").read_bytes() == before
    pretrain(data, tmp_path, "--overwrite", "--seed", "5", epochs=1)
    assert json.loads((tmp_path / "config.json").read_text())["args"]["seed"] == 5


def test_a_volume_that_vanishes_stops_the_run_or_is_stood_in_for(tmp_path, monkeypatch, capsys):
    root = make_prepared(tmp_path / "data")
    lost = root / "flair" / "sub-03_flair.npy"

    def train_epoch(trainer, epoch):
        lost.unlink(missing_ok=True)
        return true_epoch(trainer, epoch)

    true_epoch = Trainer.train_epoch
    monkeypatch.setattr(Trainer, "train_epoch", train_epoch)
    content = lost.read_bytes()
    with pytest.raises(ValueError, match=r"^.*sub-03_flair\.npy is missing.*--on_bad_volume skip$"):
        pretrain(root, tmp_path / "stop", "--num_workers", "1")
    lost.write_bytes(content)
    pretrain(root, tmp_path / "skip", "--on_bad_volume", "skip", "--num_workers", "1")
    said = capsys.readouterr().err
    assert "1 of the training volumes could not be used" in said
    assert "sub-03 (by sub-04)" in said
    assert len(read_metrics(tmp_path / "skip")) == 2


def test_a_killed_data_loading_process_costs_no_run(data, tmp_path, monkeypatch, capsys):
    read, mark, main_process = PreparedVolumes.stored_volume, tmp_path / "killed", os.getpid()

    def deadly(volumes, subject):
        if os.getpid() != main_process and subject == "sub-05" and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return read(volumes, subject)

    monkeypatch.setattr(PreparedVolumes, "stored_volume", deadly)
    pretrain(data, tmp_path / "run", "--save_freq", "1", "--num_workers", "1")
    assert mark.exists()
    said = capsys.readouterr().err
    assert "a data-loading process is killed by signal: Killed" in said
    assert "continuing from the last checkpoint" in said
    assert [row["epoch"] for row in read_metrics(tmp_path / "run")] == [0, 1]
    monkeypatch.undo()
    pretrain(data, tmp_path / "whole", "--save_freq", "1", "--num_workers", "1")
    a, b = weights(tmp_path / "run"), weights(tmp_path / "whole")
    assert all(torch.equal(a[key], b[key]) for key in a)
