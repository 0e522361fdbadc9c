import json
import shutil
import subprocess
import sys
from functools import partial

import numpy as np
import openpyxl
import pytest
import torch

import main_cr_finetune
import main_pretrain
from main_cr_finetune import main
from tests.helpers.prepared import ROOT, TINY, make_prepared
from util.checkpoint.loading import read_checkpoint
from util.evaluation import fold_predictions
from util.evaluation.predictions import read_predictions
from util.protocol.decision import Decision, read_decision
from util.runs import read_config, read_metrics
from util.training.precision import precision_of_run
from util.training.trainer import Trainer

NAME = "vim_3d_tiny_patch8"
HOLD = """
import sys
from pathlib import Path
from util.files.locks import locked
with locked(Path(sys.argv[1]), "", ""):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_prepared(tmp_path_factory.mktemp("data"), count=13)


@pytest.fixture(scope="module")
def pretrained(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("pretrain")
    main_pretrain.main(["--model", "mae_3d_vim_tiny_patch8", "--data", str(data), "--batch_size", "4", "--epochs", "1",
                        "--output_dir", str(out), "--picture_freq", "0", *TINY])  # fmt: skip
    return out / "checkpoint-0.pth"


def finetune(data, out, *options, epochs=2, k=3):
    main(["--model", NAME, "--data", str(data), "--batch_size", "4", "--epochs", str(epochs), "--lr", "1e-3",
          "--k_fold", str(k), "--output_dir", str(out), *TINY, *options])  # fmt: skip


@pytest.fixture(scope="module")
def run(data, pretrained, tmp_path_factory):
    out = tmp_path_factory.mktemp("finetune")
    finetune(data, out, "--finetune", str(pretrained))
    return out


def test_every_known_subject_is_predicted_by_the_fold_that_did_not_train_on_it(run):
    folds = json.loads((run / "folds.json").read_text())["folds"]
    predictions = read_predictions(run / "predictions.csv")
    assert len(predictions) == len({p.subject for p in predictions}) == 12  # sub-12 is unknown
    for p in predictions:
        assert p.subject in folds[p.fold]["test"]
        assert p.subject not in folds[p.fold]["train"]


@pytest.mark.parametrize("directions", ["both", "forward"])
def test_an_autoregressive_checkpoint_starts_a_classifier(data, tmp_path, capsys, directions):
    main_pretrain.main(["--model", "mae_3d_vim_tiny_patch8", "--objective", "ar", "--scan_order", "snake", "--data",
                        str(data), "--batch_size", "4", "--epochs", "1", "--output_dir", str(tmp_path / "pre"),
                        "--picture_freq", "0", *TINY])  # fmt: skip
    checkpoint = tmp_path / "pre" / "checkpoint-0.pth"
    fields = [*TINY[TINY.index("--model_kwargs") + 1 : TINY.index("--device")], f"directions={directions}"]
    finetune(data, tmp_path / "fine", "--finetune", str(checkpoint), "--scan_order", "snake", "--folds", "0",
             "--lr", "1e-9", "--weight_decay", "0", "--model_kwargs", *fields, epochs=1)  # fmt: skip
    assert ("start as copies" in capsys.readouterr().err) == (directions == "both")
    source = torch.load(checkpoint, weights_only=True)["model"]
    target = torch.load(tmp_path / "fine" / "fold_0" / "checkpoint-0.pth", weights_only=True)["model"]
    torch.testing.assert_close(target["blocks.1.mixer.conv1d.weight"], source["blocks.1.mixer.conv1d.weight"])
    assert ("blocks.1.mixer.conv1d_b.weight" in target) == (directions == "both")
    if directions == "both":
        torch.testing.assert_close(target["blocks.1.mixer.conv1d_b.weight"], source["blocks.1.mixer.conv1d.weight"])


def test_half_precision_that_does_not_pay_is_float32_in_training_and_evaluation(data, run, tmp_path, pretrained,
                                                                                monkeypatch, capsys):  # fmt: skip
    def fold_0(name, factor, *options):
        assumed = partial(precision_of_run, measure=lambda name: factor)
        monkeypatch.setattr(main_cr_finetune, "precision_of_run", assumed)
        finetune(data, tmp_path / name, "--finetune", str(pretrained), "--precision", "bf16", "--folds", "0", *options)
        return (tmp_path / name / "fold_0" / "predictions.csv").read_text()

    in_float32 = (run / "fold_0" / "predictions.csv").read_text()
    assert fold_0("slow", 6.25) == in_float32
    assert capsys.readouterr().err.count("6.2 times as long as float32's") == 1
    record = read_config(tmp_path / "slow")["precision"]
    assert (record["asked"], record["used"], record["factor"]) == ("bf16", "fp32", 6.25)
    assert fold_0("slow", 0.5, "--eval") == in_float32  # a measurement of another moment
    assert fold_0("fast", 0.5) != in_float32


def test_results_files_agree(run):
    results = json.loads((run / "results.json").read_text())
    assert (results["n"], results["n_unknown"], len(results["per_fold"])) == (12, 1, 3)
    rows = {row[0]: row for row in openpyxl.load_workbook(run / "results.xlsx")["summary"].values}
    assert rows["auc"][1] == pytest.approx(results["pooled"]["auc"])
    names = [entry["name"] for entry in results["baselines"]]  # age and grade are the same for everyone
    assert names == ["majority class", "intensity"]


def test_folds_have_their_own_logs_and_start_from_the_same_pretrained_weights(run, pretrained):
    assert all(len(read_metrics(run / f"fold_{k}")) == 2 for k in range(3))
    assert all(list((run / f"fold_{k}").glob("events.out.tfevents*")) for k in range(3))
    heads = [torch.load(run / f"fold_{k}" / "checkpoint-1.pth", weights_only=True)["model"] for k in range(3)]
    source = torch.load(pretrained, weights_only=True)["model"]
    for state in heads:  # two epochs at 1e-3 stay near the pre-trained weights; a fresh initialisation would not
        assert (state["pos_embed"] - source["pos_embed"]).abs().max() < 0.05


def test_eval_scores_again_without_training(run, data, pretrained):
    before = (run / "predictions.csv").read_text()
    stamps = {path: path.stat().st_mtime_ns for path in run.glob("fold_*/checkpoint-*.pth")}
    (run / "results.json").unlink()
    finetune(data, run, "--finetune", str(pretrained), "--eval")
    assert (run / "predictions.csv").read_text() == before
    assert (run / "results.json").exists()
    assert stamps == {path: path.stat().st_mtime_ns for path in run.glob("fold_*/checkpoint-*.pth")}


def test_folds_spread_over_jobs_gather_to_the_same_result(run, data, pretrained, tmp_path):
    finetune(data, tmp_path, "--finetune", str(pretrained), "--folds", "0,2")
    assert json.loads((tmp_path / "results.json").read_text())["missing_folds"] == [1]
    finetune(data, tmp_path, "--finetune", str(pretrained), "--folds", "1")
    assert (tmp_path / "predictions.csv").read_text() == (run / "predictions.csv").read_text()


def test_finished_folds_are_not_redone_and_a_half_done_one_goes_on(run, data, pretrained, tmp_path, capsys):
    again = shutil.copytree(run, tmp_path / "again")
    (again / "fold_1" / "predictions.csv").unlink()
    for path in ("checkpoint-0.pth", "checkpoint-1.pth"):
        (again / "fold_2" / path).unlink(missing_ok=True)
    before = (again / "fold_0" / "predictions.csv").stat().st_mtime_ns
    folds = (again / "folds.json").read_bytes()
    finetune(data, again, "--finetune", str(pretrained), "--resume", "auto")
    said = capsys.readouterr().err
    assert (again / "fold_0" / "predictions.csv").stat().st_mtime_ns == before
    assert "fold 0 is finished" in said
    assert "fold 1 is finished" not in said
    assert (again / "predictions.csv").read_text() == (run / "predictions.csv").read_text()
    assert (again / "folds.json").read_bytes() == folds


def test_a_stop_in_the_first_fold_leaves_the_others_for_later(run, data, pretrained, tmp_path):
    with pytest.raises(SystemExit):
        finetune(data, tmp_path, "--finetune", str(pretrained), "--max_minutes", "1e-9")
    assert not (tmp_path / "fold_1").exists()
    finetune(data, tmp_path, "--finetune", str(pretrained), "--resume", "auto")
    assert (tmp_path / "predictions.csv").read_text() == (run / "predictions.csv").read_text()


def test_a_trained_fold_is_not_trained_over(run, data, pretrained):
    with pytest.raises(ValueError, match=r"fold 1 in .* has checkpoints: continue it with --resume auto"):
        finetune(data, run, "--finetune", str(pretrained), "--folds", "1")


def test_two_jobs_want_the_same_fold(data, tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path / "fold_1")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as other:
        other.stdout.readline()
        with pytest.raises(
            ValueError, match=rf"fold 1 .* is in use by process {other.pid} .*choose others with --folds"
        ):
            finetune(data, tmp_path, "--folds", "1")
        with pytest.raises(ValueError, match="wait for that job before --overwrite"):
            finetune(data, tmp_path, "--overwrite")
        finetune(data, tmp_path, "--folds", "0")
        other.kill()


def test_a_finished_run_resumes_without_training(run, data, pretrained):
    before = (run / "predictions.csv").read_text()
    finetune(data, run, "--finetune", str(pretrained), "--resume", "auto")
    assert (run / "predictions.csv").read_text() == before
    assert [row["epoch"] for row in read_metrics(run / "fold_0")] == [0, 1]


def test_training_items_vary_and_held_out_items_do_not(data, tmp_path, monkeypatch):
    seen = {}

    def train_epoch(trainer, epoch):
        volume = trainer.loader.dataset[0, 0][0].unsqueeze(0)
        seen["first"], seen["again"] = (trainer.to_input(volume) for _ in range(2))
        return true_epoch(trainer, epoch)

    def predict(model, volumes, **options):
        seen["test"] = volumes
        return true_predict(model, volumes, **options)

    true_epoch, true_predict = Trainer.train_epoch, fold_predictions.predict
    monkeypatch.setattr(Trainer, "train_epoch", train_epoch)
    monkeypatch.setattr(fold_predictions, "predict", predict)
    finetune(data, tmp_path, "--folds", "0", epochs=1)
    assert not torch.equal(seen["first"], seen["again"])
    assert torch.equal(seen["test"][0][0], seen["test"][0][0])


def test_training_learns_an_easy_task(data, tmp_path):
    finetune(data, tmp_path, "--lr", "1e-2", "--no_augment", epochs=12, k=2)
    assert json.loads((tmp_path / "results.json").read_text())["pooled"]["auc"] > 0.9


@pytest.fixture(scope="module")
def plain_weights(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("plain")
    finetune(data, out, "--folds", "0", "--batch_size", "2", k=2)
    return weights(out)


def weights(out):
    return torch.load(out / "fold_0" / "checkpoint-1.pth", weights_only=True)["model"]


@pytest.mark.parametrize(
    "options",
    [["--use_scheduler"], ["--layer_decay", "0.5"], ["--smoothing", "0.3"], ["--mixup", "1.0"], ["--cutmix", "1.0"],
     ["--ema", "0.9"], ["--drop_path", "0.6"], ["--no_augment"], ["--augment", "loader"], ["--clip_grad", "0.001"],
     ["--weight_decay", "10"], ["--labels", "SWAPPED"], ["--control", "background"], ["--control", "shuffled_labels"],
     ["--val_fraction", "0.4"], ["--scan_order", "hilbert"], ["--contrast_dropout", "0.5"]],
    ids=lambda options: " ".join(options),
)  # fmt: skip
def test_every_training_option_has_an_effect(data, tmp_path, plain_weights, options):
    if options == ["--labels", "SWAPPED"]:
        book = openpyxl.load_workbook(data / "Genetic_and_Histological_labels.xlsx")
        for row in book.active.iter_rows(min_row=2):
            row[3].value = {0: 1, 1: 0, -1: -1}[row[3].value]
        book.save(tmp_path / "swapped.xlsx")
        options = ["--labels", str(tmp_path / "swapped.xlsx")]
    finetune(data, tmp_path / "run", "--folds", "0", "--batch_size", "2", *options, k=2)
    key = "blocks.1.mixer.in_proj.weight"
    assert not torch.equal(weights(tmp_path / "run")[key], plain_weights[key])


def test_a_frozen_trunk_stays_as_it_was_pretrained(data, pretrained, tmp_path):
    finetune(data, tmp_path, "--folds", "0", "--freeze_trunk", "--finetune", str(pretrained), "--lr", "0.1", k=2)
    before, after = torch.load(pretrained, weights_only=True)["model"], weights(tmp_path)
    key = "blocks.1.mixer.in_proj.weight"
    assert torch.equal(after[key], before[key])
    assert float(after["head.bias"].abs().max()) > 0.01


def test_raw_weights_are_evaluated_beside_their_average(data, tmp_path):
    finetune(data, tmp_path, "--ema", "0.9", "--batch_size", "2", k=2)
    kept = torch.load(tmp_path / "fold_0" / "checkpoint-1.pth", weights_only=True)
    assert not torch.equal(kept["model"]["head.weight"], kept["raw_model"]["head.weight"])
    averaged, raw = (
        read_predictions(tmp_path / "fold_0" / name) for name in ("predictions.csv", "predictions_raw.csv")
    )
    assert [p.subject for p in averaged] == [p.subject for p in raw]
    assert [p.probability for p in averaged] != [p.probability for p in raw]
    assert "raw weights" in json.loads((tmp_path / "results.json").read_text())["baselines"][0]["name"]
    last = json.loads((tmp_path / "fold_0" / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"test_auc", "test_raw_auc"} <= last.keys()


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--model", "mae_3d_vim_tiny_patch8"], "is an autoencoder"),
     (["--k_fold", "9"], "class 0 has 6 subjects, fewer than --k_fold 9"),
     (["--folds", "7"], "folds are 0 to 2"), (["--repeats", "2", "--folds", "6"], "folds are 0 to 5"),
     (["--select", "best_val"], "--select best_val chooses on a validation part"),
     (["--threshold", "val"], "--threshold val chooses"), (["--calibrate", "temperature"], "--calibrate temperature"),
     (["--patience", "2", "--val_fraction", "0.3"], "use best_val"),
     (["--stratify_by", "Site"], 'has no column "Site"'), (["--group_by", "Agee"], 'did you mean "Age"'),
     (["--folds_csv", "no.csv"], "no.csv does not exist"),
     (["--folds_csv", "no.csv", "--repeats", "2"], "drop --stratify_by and --repeats"),
     (["--control", "no_tumour"], "has no segmentation"),
     (["--mixup", "1", "--class_weights", "balanced"], "use one of them"), (["--folds", "a"], "separated by commas"),
     (["--nb_classes", "3"], "--nb_classes 3"),
     (["--resume", "x.pth"], "use --resume auto"),
     (["--eval"], "no fold of .* has a checkpoint"),
     (["--labels", "nowhere.xlsx"], "nowhere.xlsx"),
     (["--finetune", "nowhere.pth"], "nowhere.pth does not exist"),
     (["--mixup", "1", "--batch_size", "3"], "must be even"), (["--cutmix", "1", "--batch_size", "3"], "must be even"),
     (["--scan_order", "snak"], "did you mean 'snake'")],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_wrong_options_are_named(data, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        finetune(data, tmp_path / "run", *options)


@pytest.mark.parametrize(
    ("fields", "message"),
    [(["patch_size=4"], "patch_size is 8 in the checkpoint and 4"), (["embed_dim=24"], "embed_dim is 12"),
     (["mixer=attention", "num_heads=3"], "mixer is mamba")],
)  # fmt: skip
def test_a_checkpoint_of_another_model_is_refused(data, pretrained, tmp_path, fields, message):
    options = ["--model_kwargs", "patch_size=8", "embed_dim=12", "depth=2", "d_state=2", *fields]
    with pytest.raises(ValueError, match=message):
        finetune(data, tmp_path, "--finetune", str(pretrained), *options)


@pytest.fixture(scope="module")
def uneven(data, tmp_path_factory):
    """A label sheet with 4 of class 1 and 8 of class 0, a site, and patients of two subjects each."""
    book = openpyxl.Workbook()
    book.active.append(["Subject", "IDH", "Site", "Patient", "Age"])
    for i in range(13):
        book.active.append([f"sub-{i:02d}", int(i % 3 == 1) if i < 12 else -1, "A" if i % 4 < 2 else "B", f"p{i // 2}",
                            40 + i])  # fmt: skip
    path = tmp_path_factory.mktemp("sheet") / "uneven.xlsx"
    book.save(path)
    return path


def folds_of(out):
    return json.loads((out / "folds.json").read_text())["folds"]


def test_repeats_test_everyone_again_and_folds_count_through(data, tmp_path):
    finetune(data, tmp_path, "--repeats", "2", epochs=1, k=2)
    found = read_predictions(tmp_path / "predictions.csv")
    assert sorted((p.repeat, p.subject) for p in found) == sorted(
        (r, s) for r in (0, 1) for s in {p.subject for p in found}
    )
    assert all(p.repeat == p.fold // 2 for p in found)
    results = json.loads((tmp_path / "results.json").read_text())
    assert (results["n"], results["repeats"], results["statistics"]["repeats"]) == (12, 2, 2)
    assert (results["missing_folds"], len(results["per_fold"])) == ([], 4)


def test_design_of_the_folds_follows_the_sheet(data, tmp_path, uneven):
    options = ("--labels", str(uneven), "--folds", "0")
    finetune(data, tmp_path / "plain", *options, epochs=1, k=2)
    finetune(data, tmp_path / "site", *options, "--stratify_by", "Site", epochs=1, k=2)
    finetune(data, tmp_path / "patient", *options, "--group_by", "Patient", epochs=1, k=2)
    sites = {f"sub-{i:02d}": "A" if i % 4 < 2 else "B" for i in range(13)}
    for fold in folds_of(tmp_path / "site"):
        assert sum(sites[s] == "A" for s in fold["test"]) == 3
    for fold in folds_of(tmp_path / "patient"):
        assert not {int(s[4:]) // 2 for s in fold["train"]} & {int(s[4:]) // 2 for s in fold["test"]}
    assert {p.patient for p in read_predictions(tmp_path / "patient" / "predictions.csv")} < {f"p{i}" for i in range(7)}
    assert folds_of(tmp_path / "plain") != folds_of(tmp_path / "site")


def test_folds_come_from_a_file(data, tmp_path):
    (tmp_path / "f.csv").write_text("subject,fold\n" + "".join(f"sub-{i:02d},{i // 6}\n" for i in range(12)))
    finetune(data, tmp_path / "run", "--folds_csv", str(tmp_path / "f.csv"), "--folds", "1", epochs=1, k=2)
    assert folds_of(tmp_path / "run")[1]["test"] == [f"sub-{i:02d}" for i in range(6, 12)]
    (tmp_path / "g.csv").write_text((tmp_path / "f.csv").read_text())
    with pytest.raises(ValueError, match="was made with --folds_csv"):
        finetune(data, tmp_path / "run", "--folds_csv", str(tmp_path / "g.csv"), "--folds", "0", epochs=1, k=2)


CHOOSING = ("--val_fraction", "0.4", "--select", "best_val", "--calibrate", "temperature", "--threshold", "val",
            "--batch_size", "2",             "--folds", "0", "--lr", "1e-2", "--no_augment")  # fmt: skip


@pytest.fixture(scope="module")
def chosen(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("chosen")
    finetune(data, out, *CHOOSING, epochs=4, k=2)
    return out


def test_the_test_fold_is_never_used_to_choose(data, chosen, tmp_path):
    """Replace every test volume by noise and swap every test label: weights, epoch, temperature and threshold stay."""
    spoilt = tmp_path / "data"
    shutil.copytree(data, spoilt)
    test = folds_of(chosen)[0]["test"]
    generator = np.random.default_rng(0)
    for subject in test:
        for path in spoilt.glob(f"*/{subject}_*.npy"):
            np.save(path, generator.integers(1, 255, np.load(path).shape).astype(np.uint8))
    book = openpyxl.load_workbook(spoilt / "Genetic_and_Histological_labels.xlsx")
    for row in book.active.iter_rows(min_row=2):
        if row[0].value in test:
            row[3].value = 1 - row[3].value
    book.save(spoilt / "Genetic_and_Histological_labels.xlsx")
    out = tmp_path / "run"
    out.mkdir()
    shutil.copy(chosen / "folds.json", out)  # as swapped labels would divide otherwise
    finetune(spoilt, out, *CHOOSING, epochs=4, k=2)
    kept, again = (read_checkpoint(folder / "fold_0" / "best.pth") for folder in (chosen, out))
    assert (kept["epoch"], kept["val_score"]) == (again["epoch"], again["val_score"])
    assert all(torch.equal(kept["model"][name], again["model"][name]) for name in kept["model"])
    before, after = (read_predictions(folder / "predictions.csv") for folder in (chosen, out))
    assert {p.threshold for p in before} == {p.threshold for p in after}
    assert [p.subject for p in before] == [p.subject for p in after]
    assert all(p.probability != q.probability and p.label != q.label for p, q in zip(before, after))


def test_the_chosen_epoch_is_the_best_on_validation(chosen, data):
    rows = read_metrics(chosen / "fold_0")
    best = max(rows, key=lambda row: (row["val_auc"], -row["val_brier"]))
    assert read_checkpoint(chosen / "fold_0" / "best.pth")["epoch"] == best["epoch"]
    before, decision = (chosen / "predictions.csv").read_text(), read_decision(chosen / "fold_0", {})
    assert (decision.select, decision.tta) == ("best_val", "none")
    assert decision.temperature != 1
    thresholds = [p.threshold for p in read_predictions(chosen / "predictions.csv")]
    assert thresholds == pytest.approx([decision.threshold] * len(thresholds))
    (chosen / "fold_0" / "decision.json").unlink()
    finetune(data, chosen, *CHOOSING, "--eval", epochs=4, k=2)
    assert (chosen / "predictions.csv").read_text() == before
    assert read_decision(chosen / "fold_0", {}) == decision
    finetune(data, chosen, *CHOOSING, "--eval", "--select", "last", "--threshold", "fixed", "--calibrate", "none",
             "--override", epochs=4, k=2)  # fmt: skip
    last = read_predictions(chosen / "predictions.csv")
    assert {p.threshold for p in last} == {0.5}
    assert read_decision(chosen / "fold_0", {}) == Decision()
    assert (chosen / "predictions.csv").read_text() != before


def test_patience_stops_and_a_resumed_run_stays_stopped(data, tmp_path):
    options = ("--val_fraction", "0.4", "--select", "best_val", "--patience", "1", "--folds", "0", "--lr", "0",
               "--batch_size", "2", "--weight_decay", "0", "--drop_path", "0")  # fmt: skip
    finetune(data, tmp_path, *options, epochs=6, k=2)
    assert [row["epoch"] for row in read_metrics(tmp_path / "fold_0")] == [0, 1]
    finetune(data, tmp_path, *options, "--resume", "auto", epochs=6, k=2)
    assert [row["epoch"] for row in read_metrics(tmp_path / "fold_0")] == [0, 1]


def test_test_time_flips_change_predictions_but_no_weight(run, data, pretrained, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    finetune(data, tmp_path / "run", "--finetune", str(pretrained), "--eval", "--tta", "flip", "--override")
    assert (tmp_path / "run" / "predictions.csv").read_text() != (run / "predictions.csv").read_text()
    assert read_decision(tmp_path / "run" / "fold_0", {}) == Decision(tta="flip")


def test_class_weights_matter_where_classes_are_uneven(data, tmp_path, uneven):
    options = ("--labels", str(uneven), "--folds", "0", "--batch_size", "2")
    finetune(data, tmp_path / "a", *options, k=2)
    finetune(data, tmp_path / "b", *options, "--class_weights", "balanced", k=2)
    assert not torch.equal(weights(tmp_path / "a")["head.weight"], weights(tmp_path / "b")["head.weight"])


@pytest.mark.parametrize(("extent", "names"), [("none", []), ("sheet", ["majority class", "age"])])
def test_baselines_as_far_as_asked(data, tmp_path, uneven, extent, names):
    finetune(data, tmp_path, "--labels", str(uneven), "--folds", "0", "--baselines", extent, epochs=1, k=2)
    results = json.loads((tmp_path / "results.json").read_text())
    assert [entry["name"] for entry in results["baselines"]] == names


def test_shuffled_labels_are_what_is_learnt_and_scored(data, tmp_path):
    finetune(data, tmp_path, "--control", "shuffled_labels", "--seed", "4", epochs=1, k=2)
    found = read_predictions(tmp_path / "predictions.csv")
    assert sum(p.label for p in found) == 6
    assert any(p.label != int(p.subject[4:]) % 2 for p in found)
    for fold in (0, 1):  # uneven folds would push the pooled AUC below chance
        assert sum(p.label for p in found if p.fold == fold) == 3
    assert json.loads((tmp_path / "results.json").read_text())["protocol"]["control"] == "shuffled_labels"


def test_skipped_volumes_are_stood_in_for_and_never_scored(tmp_path, capsys):
    root = make_prepared(tmp_path / "data")
    (root / "t2" / "sub-04_t2.npy").write_bytes(b"")
    with pytest.raises(ValueError, match=r"sub-04_t2\.npy"):
        finetune(root, tmp_path / "stop", epochs=1)
    finetune(root, tmp_path / "skip", "--on_bad_volume", "skip", epochs=1)
    scored = {prediction.subject for prediction in read_predictions(tmp_path / "skip" / "predictions.csv")}
    assert scored == {f"sub-{i:02d}" for i in range(11)} - {"sub-04"}
    said = capsys.readouterr().err
    assert "left out of the evaluation, their volumes cannot be used: sub-04" in said
    assert "sub-04 (by sub-" in said
