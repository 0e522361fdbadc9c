"""A run that goes on, or is scored again, keeps the options that it was started with."""

import json
import shutil

import pytest
import torch

import main_cr_finetune
import main_pretrain
from tests.helpers.prepared import TINY, make_prepared
from util.inference.ensemble import open_ensemble
from util.inference.open_run import open_run
from util.options.build import list_options
from util.options.finetune import FinetuneOptions
from util.options.pretrain import PretrainOptions
from util.runs import read_config, read_fold_config
from vis.reporting.facts import finetune_facts

# Another value than that of the runs below.
OTHER = {
    "model": "vim_3d_tiny_patch16", "input_size": "32", "scan_order": "snake", "model_kwargs": "depth=1",
    "drop_path": "0.3", "contrast_dropout": "0.2", "fidelity": "paper", "nb_classes": "3", "normalize": "zscore",
    "finetune": "other.pth", "epochs": "5", "lr": "0.5", "clip_grad": "3", "ema": "0.9",
    "layer_decay": "0.5", "smoothing": "0.2", "max_bad_steps": "3", "val_fraction": "0.3", "patience": "3",
    "stratify_by": "Grade", "group_by": "Age", "mask_ratio": "0.5", "masking": "block", "save_freq": "1000min",
    "keep_last": "9", "max_minutes": "1000", "rank_timeout": "20", "threads": "1", "device": "cpu", "resume": "auto",
}  # fmt: skip
SELECTS = ("output_dir", "resume", "eval", "folds", "overwrite")  # which run, and what of it
PATHS = ("data", "config", "labels", "folds_csv", "log_dir")


def other_words(one, place):
    if one.is_switch:
        return list(one.off[:1]) if one.default else [one.flag]
    if one.name == "name_dataset":
        return ["--config", str(place["config"]), one.flag, "other"]
    if one.name in PATHS:
        return [one.flag, str(place[one.name])]
    if one.name in OTHER:
        return [one.flag, OTHER[one.name]]
    if one.choices:
        return [one.flag, next(choice for choice in one.choices if choice != one.default)]
    return [one.flag, str(one.default + 1 if one.default else 1)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A prepared folder and another one, and what options name."""
    root = tmp_path_factory.mktemp("place")
    found = {name: make_prepared(root / name) for name in ("own", "data")}
    (root / "config.ini").write_text(
        f"[other]\nBASE_PATH = {found['data']}\nTEST_BASE_PATH = {found['data']}\n"
        f"[brats_160]\nBASE_PATH = {found['data']}\nTEST_BASE_PATH = {found['data']}\n"
    )
    (root / "f.csv").write_text("subject,fold\n" + "".join(f"sub-{i:02d},{i // 6}\n" for i in range(11)))
    labels = shutil.copy(found["data"] / "Genetic_and_Histological_labels.xlsx", root / "labels.xlsx")
    return {**found, "root": root, "config": root / "config.ini", "labels": labels, "folds_csv": root / "f.csv",
            "log_dir": root / "events"}  # fmt: skip


COMMON = ["--batch_size", "4", "--epochs", "2", "--lr", "1e-3", "--save_freq", "1", "--normalize", "range",
          "--scan_order", "hilbert"]  # fmt: skip
FREE = ["--device", "cpu", "--num_workers", "0", "--save_freq", "1"]  # of this machine


@pytest.fixture(scope="module")
def finetuned(place):
    out = place["root"] / "finetuned"
    main_cr_finetune.main(["--model", "vim_3d_tiny_patch8", "--data", str(place["own"]), "--k_fold", "2", "--folds",
                           "0", "--output_dir", str(out), *COMMON, *TINY])  # fmt: skip
    return out


@pytest.fixture(scope="module")
def pretrained(place):
    out = place["root"] / "pretrained"
    main_pretrain.main(["--model", "mae_3d_vim_tiny_patch8", "--data", str(place["own"]), "--picture_freq", "0",
                        "--output_dir", str(out), *COMMON, *TINY])  # fmt: skip
    return out


def weights(path):
    return torch.load(path, weights_only=True)["model"]


def same_weights(first, second):
    a, b = weights(first), weights(second)
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def cut(run, out):
    """A copy of a run that was interrupted after its first epoch."""
    shutil.copytree(run, out)
    for path in out.rglob("checkpoint-1.pth"):
        path.unlink()
    for path in out.rglob("predictions.csv"):
        path.unlink()
    return out


OF_FINETUNE = [one for one in list_options(FinetuneOptions) if one.name not in SELECTS]
OF_PRETRAIN = [one for one in list_options(PretrainOptions) if one.name not in SELECTS]


def assert_refused_or_same(one, run, is_same):
    """run() is refused by the option's name; a free one gives the same bits."""
    if one.is_free:
        run()
        assert is_same()
        return
    with pytest.raises(ValueError, match=rf"--{one.name}\b"):
        run()


@pytest.mark.parametrize("one", OF_FINETUNE, ids=lambda one: one.name)
def test_an_option_of_another_run_is_not_scored_silently(finetuned, place, tmp_path, one):
    out = shutil.copytree(finetuned, tmp_path / "run")
    words = ["--output_dir", str(out), "--eval", *FREE, *other_words(one, place)]
    before = {path: path.read_bytes() for path in out.rglob("*") if path.name in ("predictions.csv", "results.json")}
    if one.is_free:
        (out / "predictions.csv").unlink()
    assert_refused_or_same(one, lambda: main_cr_finetune.main(words), lambda: True)
    assert before == {path: path.read_bytes() for path in before}


@pytest.mark.parametrize("one", OF_FINETUNE, ids=lambda one: one.name)
def test_a_fine_tuning_goes_on_with_its_own_options(finetuned, place, tmp_path, one):
    out = cut(finetuned, tmp_path / "run")
    words = ["--output_dir", str(out), "--folds", "0", "--resume", "auto", *FREE, *other_words(one, place)]
    last = "fold_0/checkpoint-1.pth"
    assert_refused_or_same(
        one, lambda: main_cr_finetune.main(words), lambda: same_weights(out / last, finetuned / last)
    )


@pytest.mark.parametrize("one", OF_PRETRAIN, ids=lambda one: one.name)
def test_a_pre_training_goes_on_with_its_own_options(pretrained, place, tmp_path, one):
    out = cut(pretrained, tmp_path / "run")
    words = ["--output_dir", str(out), "--resume", "auto", *FREE, *other_words(one, place)]
    last = "checkpoint-1.pth"
    assert_refused_or_same(one, lambda: main_pretrain.main(words), lambda: same_weights(out / last, pretrained / last))


def test_the_shortest_command_scores_and_continues_a_run_as_it_was(finetuned, pretrained, tmp_path):
    out = shutil.copytree(finetuned, tmp_path / "scored")
    (out / "results.json").unlink()
    main_cr_finetune.main(["--output_dir", str(out), "--eval", *FREE])
    for name in ("predictions.csv", "results.json"):
        assert (out / name).read_bytes() == (finetuned / name).read_bytes()
    out = cut(finetuned, tmp_path / "continued")
    main_cr_finetune.main(["--output_dir", str(out), "--folds", "0", "--resume", "auto", *FREE])
    assert (out / "predictions.csv").read_bytes() == (finetuned / "predictions.csv").read_bytes()
    out = cut(pretrained, tmp_path / "pre")
    main_pretrain.main(["--output_dir", str(out), "--resume", "auto", *FREE])
    assert same_weights(out / "checkpoint-1.pth", pretrained / "checkpoint-1.pth")


def test_options_that_repeat_the_runs_are_welcome(finetuned, place, tmp_path, monkeypatch):
    out = shutil.copytree(finetuned, tmp_path / "run")
    monkeypatch.chdir(place["root"])
    main_cr_finetune.main(["--output_dir", str(out), "--eval", *COMMON, *TINY, "--data", "own", "--input_size", "16",
                           "16", "16"])  # fmt: skip
    assert (out / "predictions.csv").read_bytes() == (finetuned / "predictions.csv").read_bytes()


def test_another_fold_is_trained_like_the_first(finetuned, place, tmp_path):
    out = shutil.copytree(finetuned, tmp_path / "run")
    with pytest.raises(ValueError, match=r"config\.json was made with --lr 0\.001, not 0\.5; --seed 0, not 4"):
        main_cr_finetune.main(["--output_dir", str(out), "--folds", "1", *FREE, "--lr", "0.5", "--seed", "4"])
    assert not (out / "fold_1").exists()
    main_cr_finetune.main(["--output_dir", str(out), "--folds", "1", *FREE])
    first, second = (read_fold_config(out, fold) for fold in (0, 1))
    assert (first.pop("fold"), second.pop("fold")) == (0, 1)
    defining = [one.name for one in list_options(FinetuneOptions) if not one.is_free and one.name != "labels"]
    assert all(first["args"][name] == second["args"][name] for name in defining)
    assert "folds_differ" not in json.loads((out / "results.json").read_text())["protocol"]


def test_an_override_is_recorded(finetuned, tmp_path):
    out = shutil.copytree(finetuned, tmp_path / "run")
    before = read_config(out)
    main_cr_finetune.main(["--output_dir", str(out), "--eval", "--tta", "flip", "--override", *FREE])
    after = read_config(out)
    assert {**after, "history": before["history"]} == before  # the weights are what they were
    assert after["history"][-1]["overridden"] == {"tta": ["none", "flip"]}
    differing = {"0": {"tta": ["none", "flip"]}}
    assert json.loads((out / "results.json").read_text())["protocol"]["folds_differ"] == differing


def test_a_fold_of_other_options_is_recorded_and_kept_apart(finetuned, tmp_path):
    out = shutil.copytree(finetuned, tmp_path / "run")
    main_cr_finetune.main(["--output_dir", str(out), "--folds", "1", "--lr", "0.01", "--override", *FREE])
    assert [read_fold_config(out, fold)["args"]["lr"] for fold in (0, 1)] == [0.001, 0.01]
    results = json.loads((out / "results.json").read_text())
    assert results["protocol"]["folds_differ"] == {"0": {"lr": [0.001, 0.01]}}
    with pytest.raises(ValueError, match=r"fold_0/config\.json was made with --lr 0\.001, not 0\.01"):
        main_cr_finetune.main(["--output_dir", str(out), "--eval", *FREE])


def test_folds_of_different_input_are_each_opened_as_trained_and_never_mixed(finetuned, tmp_path):
    out = shutil.copytree(finetuned, tmp_path / "run")
    words = ["--output_dir", str(out), "--folds", "1", "--normalize", "zscore", "--drop_path", "0.3", "--override"]
    main_cr_finetune.main([*words, *FREE])
    for fold, (normalize, drop_path) in enumerate([("range", 0.1), ("zscore", 0.3)]):
        opened = open_run(out, "finetune", fold=fold, device="cpu")
        assert (opened.data.normalize, opened.model.config.drop_path_rate) == (normalize, drop_path)
    assert dict(finetune_facts(out).details)["Intensities of folds"] == "range (fold 0); zscore (fold 1)"
    with pytest.raises(ValueError, match=r"fold 0 was trained with normalize range, fold 1 with zscore"):
        open_ensemble(out, torch.device("cpu"))
    shutil.rmtree(out / "fold_1")
    assert open_ensemble(out, torch.device("cpu")).config["data"]["normalize"] == "range"  # not the newest command's


def test_weights_of_another_normalisation_are_warned_of(pretrained, place, tmp_path, capsys):
    for normalize in ("range", "zscore"):
        main_cr_finetune.main(["--model", "vim_3d_tiny_patch8", "--data", str(place["own"]), "--k_fold", "2", "--folds",
                               "0", "--finetune", str(pretrained / "checkpoint-1.pth"), "--output_dir",
                               str(tmp_path / normalize), *COMMON, "--normalize", normalize, *TINY])  # fmt: skip
        said = capsys.readouterr().err
        assert ("was trained with intensity normalisation range, here it is zscore" in said) == (normalize == "zscore")


def test_resuming_keeps_the_command_that_made_the_weights(finetuned, pretrained, tmp_path):
    for run, program in ((finetuned, main_cr_finetune), (pretrained, main_pretrain)):
        out = cut(run, tmp_path / run.name)
        before = read_config(run)
        program.main(["--output_dir", str(out), "--resume", "auto", "--threads", "1", *FREE])
        after = read_config(out)
        assert {**after, "history": None} == {**before, "history": None}
        assert after["history"][0]["command"] == before["command"]
        assert len(after["history"]) == len(before["history"]) + 1


def test_a_checkpoint_of_another_run_brings_its_options_along(pretrained, tmp_path):
    out = tmp_path / "elsewhere"
    checkpoint = str(pretrained / "checkpoint-0.pth")
    with pytest.raises(ValueError, match="was made with --epochs 2, not 3"):
        main_pretrain.main(["--output_dir", str(out), "--resume", checkpoint, "--epochs", "3", *FREE])
    main_pretrain.main(["--output_dir", str(out), "--resume", checkpoint, *FREE, "--picture_freq", "0"])
    assert same_weights(out / "checkpoint-1.pth", pretrained / "checkpoint-1.pth")
    alone = shutil.copy(checkpoint, tmp_path / "alone.pth")
    main_pretrain.main(["--output_dir", str(tmp_path / "third"), "--resume", str(alone), *FREE])
    assert same_weights(tmp_path / "third" / "checkpoint-1.pth", pretrained / "checkpoint-1.pth")


def test_runs_without_records_of_this_kind_still_load(finetuned, tmp_path):
    out = shutil.copytree(finetuned, tmp_path / "run")
    content = read_config(out)
    del content["history"]
    (out / "fold_0" / "config.json").unlink()
    del content["args"]["baselines"]  # of a version that had no such option
    (out / "config.json").write_text(json.dumps(content))
    main_cr_finetune.main(["--output_dir", str(out), "--eval", *FREE])
    assert (out / "predictions.csv").read_bytes() == (finetuned / "predictions.csv").read_bytes()
    del content["args"]
    (out / "config.json").write_text(json.dumps(content))
    main_cr_finetune.main(["--output_dir", str(out), "--eval", "--model", "vim_3d_tiny_patch8", "--data",
                           content["data"]["root"], "--k_fold", "2", *COMMON, *TINY])  # fmt: skip
    assert (out / "predictions.csv").read_bytes() == (finetuned / "predictions.csv").read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [({"args": {"epochs": "many"}}, r"config\.json: args\.epochs"), ({"kind": "pretrain"}, "of a pretrain run"),
     ({"args": {"normalize": "other"}}, r"args\.normalize: .*none of"), ({"args": {"no_augment": 1}}, "no_augment"),
     ({"args": {"input_size": 3}}, "is not a list")],
)  # fmt: skip
def test_a_damaged_record_is_named(finetuned, tmp_path, change, message):
    out = shutil.copytree(finetuned, tmp_path / "run")
    (out / "config.json").write_text(json.dumps(read_config(out) | change))
    with pytest.raises(ValueError, match=message):
        main_cr_finetune.main(["--output_dir", str(out), "--eval", *FREE])


def test_options_that_exclude_each_other(finetuned):
    for words in (["--eval"], ["--resume", "auto"]):
        with pytest.raises(ValueError, match=f"{words[0]} uses the run in .* --overwrite would remove"):
            main_cr_finetune.main(["--output_dir", str(finetuned), "--overwrite", *words])
