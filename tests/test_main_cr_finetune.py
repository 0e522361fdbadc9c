import json

import openpyxl
import pytest
import torch

import main_cr_finetune
import main_pretrain
from main_cr_finetune import main, selected_folds
from tests.prepared import TINY, make_prepared
from util.record import read_metrics
from util.results import read_predictions

NAME = "vim_3d_tiny_patch8"


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


def test_results_files_agree(run):
    results = json.loads((run / "results.json").read_text())
    assert (results["n"], results["n_unknown"], len(results["per_fold"])) == (12, 1, 3)
    sheet = openpyxl.load_workbook(run / "results.xlsx")["folds"]
    assert sheet.cell(sheet.max_row, 1).value == "pooled"
    assert sheet.cell(sheet.max_row, 5).value == pytest.approx(results["pooled"]["auc"])


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


def test_a_finished_run_resumes_without_training(run, data, pretrained):
    before = (run / "predictions.csv").read_text()
    finetune(data, run, "--finetune", str(pretrained), "--resume", "auto")
    assert (run / "predictions.csv").read_text() == before
    assert [row["epoch"] for row in read_metrics(run / "fold_0")] == [0, 1]


def test_training_items_vary_and_held_out_items_do_not(data, tmp_path, monkeypatch):
    seen = {}

    def epoch(model, loader, **options):
        subject = loader.dataset[0][0].unsqueeze(0)
        seen["first"], seen["again"] = (options["to_input"](subject) for _ in range(2))
        return main_cr_finetune_epoch(model, loader, **options)

    def scored(model, volumes, **options):
        seen["test"] = volumes
        return main_cr_finetune_predict(model, volumes, **options)

    main_cr_finetune_epoch, main_cr_finetune_predict = main_cr_finetune.finetune_epoch, main_cr_finetune.predict
    monkeypatch.setattr(main_cr_finetune, "finetune_epoch", epoch)
    monkeypatch.setattr(main_cr_finetune, "predict", scored)
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
    [["--use_scheduler"], ["--layer_decay", "0.5"], ["--smoothing", "0.3"], ["--mixup", "1.0"], ["--ema", "0.9"],
     ["--drop_path", "0.6"], ["--no_augment"], ["--augment", "loader"], ["--clip_grad", "0.001"],
     ["--weight_decay", "10"], ["--labels", "SWAPPED"], ["--scan_order", "hilbert"]],
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


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--model", "mae_3d_vim_tiny_patch8"], "is an autoencoder"),
     (["--k_fold", "9"], "class 0 has 6 subjects, fewer than --k_fold 9"),
     (["--folds", "7"], "folds are 0 to 2"), (["--folds", "a"], "separated by commas"),
     (["--nb_classes", "3"], "--nb_classes 3"),
     (["--resume", "x.pth"], "use --resume auto"),
     (["--eval"], "no fold of .* has a checkpoint"),
     (["--labels", "nowhere.xlsx"], "nowhere.xlsx"),
     (["--finetune", "nowhere.pth"], "nowhere.pth does not exist"),
     (["--mixup", "1", "--batch_size", "3"], "must be even"),
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


def test_selected_folds():
    assert selected_folds(None, 3) == [0, 1, 2]
    assert selected_folds("2,0,2", 3) == [0, 2]
