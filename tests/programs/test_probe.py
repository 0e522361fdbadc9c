"""probe.py on a tiny cohort: every option has an effect, no held-out label is used, features are computed once."""

import argparse
import csv
import json

import numpy as np
import openpyxl
import pytest
import torch

import main_cr_finetune
import main_pretrain
import probe
import util.probing.probes
from models import create_model
from tests.helpers.prepared import SIDE, TINY, make_prepared
from util import cli
from util.checkpoint.loading import save_checkpoint
from util.evaluation.predictions import read_predictions
from util.protocol.folds import load_folds

COUNT = 25  # 24 of known label


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_prepared(tmp_path_factory.mktemp("data"), count=COUNT)


@pytest.fixture(scope="module")
def pretrained(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("pretrain")
    main_pretrain.main(["--model", "mae_3d_vim_tiny_patch8", "--data", str(data), "--batch_size", "8", "--epochs", "1",
                        "--output_dir", str(out), "--picture_freq", "0", *TINY])  # fmt: skip
    return out / "checkpoint-0.pth"


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    monkeypatch.setattr(cli, "setup_logging", lambda *_: None)


@pytest.fixture(autouse=True)
def _few_choices(monkeypatch):
    for name, value in (("INNER_FOLDS", 2), ("NEIGHBOURS", (1, 5)), ("INVERSE_PENALTIES", (1e-3, 1.0))):
        monkeypatch.setattr(util.probing.probes, name, value)


@pytest.fixture
def run(data, pretrained, tmp_path):
    """Probe the pre-trained checkpoint, return results.json."""

    def run(*options, checkpoints=(), out="out"):
        named = [str(pretrained), *map(str, checkpoints)]
        probe.main(["--checkpoints", *named, "--data", str(data), "--output_dir", str(tmp_path / out), "--device",
                    "cpu", *options])  # fmt: skip
        return json.loads((tmp_path / out / "results.json").read_text())

    return run


def aucs(results):
    return [row["pooled"]["auc"] for row in results["rows"]]


def test_every_checkpoint_layer_and_probe_is_scored_in_the_same_folds(run, data, pretrained, tmp_path, caplog):
    with caplog.at_level("INFO", "probe"):
        results = run("--layers", "0", "last", "--k_fold", "3", checkpoints=["random"])
    shown = [(row["checkpoint"], row["layer"], row["probe"]) for row in results["rows"]]
    titles = (str(pretrained), "random (mae_3d_vim_tiny_patch8)")
    assert shown == [(title, layer, name) for title in titles for layer in (0, 1) for name in ("knn", "logistic")]
    folds = json.loads((tmp_path / "out" / "folds.json").read_text())["folds"]
    for row in results["rows"]:
        assert (row["n"], len(row["per_fold"]), len(row["chosen"])) == (24, 3, 3)
        for p in read_predictions(tmp_path / "out" / row["predictions"]):
            assert p.subject in folds[p.fold]["test"]
    assert max(aucs(results)) > 0.9  # bright blobs mark class 1
    assert f"{titles[0]}      1  logistic" in caplog.text
    assert len(list(csv.DictReader((tmp_path / "out" / "results.csv").read_text().splitlines()))) == 8 * 6
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["kind"] == "probe"
    assert config["sources"][0]["normalize"] == "zscore"


def test_random_labels_give_chance(run, tmp_path):
    """The whole path from volumes to table, labels dealt out at random: no probe is far above a half."""
    generator = np.random.default_rng(0)
    found = []
    for number in range(3):
        labels = generator.permutation([0, 1] * 12).tolist()
        sheet = write_sheet(tmp_path / f"{number}.xlsx", labels)
        found += aucs(run("--labels", str(sheet), "--k_fold", "3", out=f"out{number}"))
    assert np.mean(found) < 0.65


def write_sheet(path, labels):
    book = openpyxl.Workbook()
    book.active.append(["Subject", "IDH"])
    for index in range(COUNT):
        book.active.append([f"sub-{index:02d}", labels[index] if index < len(labels) else -1])
    book.save(path)
    return path


def test_features_are_computed_once(run, monkeypatch):
    first = run("--k_fold", "3")
    monkeypatch.setattr(probe, "extract_features", lambda *_, **__: pytest.fail("computed again"))
    assert run("--k_fold", "3") == first
    with pytest.raises(pytest.fail.Exception, match="computed again"):
        run("--k_fold", "3", "--pool", "max")


def test_seed_pool_and_label_type_have_an_effect(run):
    plain = run("--k_fold", "3")
    assert run("--k_fold", "3", "--seed", "1", out="seed")["folds_hash"] != plain["folds_hash"]
    pooled = run("--k_fold", "3", "--pool", "max", out="pool")
    assert pooled["rows"] != plain["rows"]
    assert run("--k_fold", "3", "--label_type", "1p19q", out="label")["rows"][0]["n"] == 25
    assert run(out="default")["k_fold"] == 5


def test_folds_of_a_fine_tuning_run_are_used(run, data, pretrained, tmp_path):
    finetuned = tmp_path / "finetune"
    main_cr_finetune.main(["--model", "vim_3d_tiny_patch8", "--data", str(data), "--epochs", "1", "--k_fold", "4",
                           "--seed", "5", "--folds", "0", "--output_dir", str(finetuned), *TINY])  # fmt: skip
    results = run("--folds_from", str(finetuned))
    assert results["k_fold"] == 4
    known = {f"sub-{i:02d}": i % 2 for i in range(24)}
    ours, theirs = (load_folds(folder / "folds.json", known, "IDH") for folder in (tmp_path / "out", finetuned))
    assert ours == theirs
    assert run("--folds_from", str(finetuned / "folds.json"), out="file")["folds_hash"] == results["folds_hash"]
    with pytest.raises(ValueError, match="folds for IDH, not 1p19q: give another file with --folds_from"):
        run("--folds_from", str(finetuned), "--label_type", "1p19q")
    with pytest.raises(ValueError, match="its features contain the answers"):
        run(checkpoints=[finetuned / "fold_0" / "checkpoint-0.pth"])
    with pytest.raises(ValueError, match="holds a run of another program"):
        run(out="finetune")


def test_a_published_checkpoint_of_another_grid(run, tmp_path, caplog):
    fields = {"img_size": 2 * SIDE, "depth": 12, "fidelity": "paper"}
    mae = create_model("mae_3d_vim_tiny_patch16", **fields)
    args = argparse.Namespace(model="mae_3d_vim_tiny_patch16", input_size=2 * SIDE)
    save_checkpoint(tmp_path / "p.pth", {"model": mae.state_dict(), "args": args})
    with caplog.at_level("INFO"):
        results = run("--k_fold", "3", checkpoints=[tmp_path / "p.pth"])
    assert "does not record its normalisation: taken to be zscore-joint" in caplog.text
    assert "resampled from grid (2, 2, 2) to (1, 1, 1)" in caplog.text
    assert [row["layer"] for row in results["rows"]] == [1, 1, 11, 11]
    assert "fidelity" not in caplog.text  # the model is paper's too


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--layers", "2"], r'--layers 2: choose from 0 to 1, or "last"'), (["--layers", "x"], "--layers x"),
     (["--k_fold", "13"], "fewer than --k_fold 13"), (["--folds_from", "nowhere"], "--folds_from nowhere"),
     (["--device", "cuda"], "--device cuda"), (["--labels", "nowhere.xlsx"], "nowhere")],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_wrong_options_are_named(run, options, message):
    if options == ["--device", "cuda"] and torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(ValueError, match=message):
        run(*options)


@pytest.mark.parametrize(
    ("checkpoints", "message"),
    [(["random"], "takes its model from a checkpoint"), (["gone.pth"], "gone.pth does not exist"),
     (["random", "random"], "given twice")],
)  # fmt: skip
def test_wrong_checkpoints_are_named(data, tmp_path, checkpoints, message):
    with pytest.raises(ValueError, match=message):
        probe.main(["--checkpoints", *checkpoints, "--data", str(data), "--output_dir", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_weights_of_an_unknown_model_are_refused(data, tmp_path):
    torch.save({"conv.weight": torch.zeros(2)}, tmp_path / "m.pth")
    with pytest.raises(ValueError, match=r"m\.pth: its model is not recorded"):
        probe.main(["--checkpoints", str(tmp_path / "m.pth"), "--data", str(data)])
    with pytest.raises(ValueError, match="is not a folder"):
        probe.main(["--checkpoints", "random", "--data", str(tmp_path / "gone")])


def test_folds_are_made_or_given_not_both(run):
    with pytest.raises(SystemExit):
        run("--k_fold", "3", "--folds_from", "x")
