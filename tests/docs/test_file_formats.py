"""docs/file-formats.md names exactly the fields that the programs write."""

import csv
import json
import re

import openpyxl
import pytest

import compare
import main_cr_finetune
import predict
import prepare_data
from tests.helpers.pages import ROOT, text_of
from tests.helpers.prepared import TINY
from tests.helpers.raw_studies import write_study
from util import cli
from util.checkpoint import read_checkpoint
from util.data.folder import CONTRASTS, LABEL_SHEET

TEXT = text_of(ROOT / "docs" / "file-formats.md")
OPTIONAL = {"sealed", "tallies", "val_auc", "val_brier", "test_raw_auc", "test_raw_accuracy"}


def names(heading, column=0):
    """Backticked names in a column of the first table below a heading, or below a table's header."""
    below = TEXT[TEXT.index(f"\n{heading}") :]
    table = re.search(r"(?:^\|.*\n)+", below, re.MULTILINE)
    assert table is not None
    rows = table[0].splitlines()[2:]
    return {name for row in rows for name in re.findall(r"`([\w.]+)`", row.split("|")[column + 1])}


def inner(heading, field):
    """Backticked names in the second column of one field's row."""
    below = TEXT[TEXT.index(f"\n{heading}") :]
    (row,) = re.findall(rf"^\| `{field}`.*", below, re.MULTILINE)[:1]
    return set(re.findall(r"`(\w+)`", row.split("|")[2]))


@pytest.fixture(scope="module")
def place(tmp_path_factory, hub_runs):
    """Prepared studies, runs with an average and a validation part, a comparison and a patient's report."""
    root = tmp_path_factory.mktemp("formats")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "setup_logging", lambda *_: None)
        write_study(root / "raw", "S-1")
        assert prepare_data.main(["brats", str(root / "raw"), str(root / "prepared"), "--size", "16"]) == 0
        words = ["--model", "vim_3d_tiny_patch8", "--data", str(hub_runs / "private_place"), "--k_fold", "2",
                 "--epochs", "1", "--batch_size", "2", "--ema", "0.9", "--val_fraction", "0.4", "--select",
                 "best_val", "--repeats", "2", *TINY]  # fmt: skip
        main_cr_finetune.main([*words, "--output_dir", str(root / "run")])
        compare.main([str(root / "run"), str(root / "run" / "predictions.csv"), "--out", str(root / "comparison")])
        patient = root / "raw" / "S-1"
        predict.main([str(patient), "--run", str(root / "run"), "--output_dir", str(root / "predicted"),
                      "--device", "cpu", "--map", "max"])  # fmt: skip
    return root


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def first_row(path):
    with path.open(newline="", encoding="utf-8") as file:
        return set(next(csv.reader(file)))


def test_prepared_folder(place, hub_runs):
    folder = place / "prepared"
    for name in re.findall(r"`([\w/.]*NAME[\w.]*)`", TEXT.split("### manifest")[0]):
        assert (folder / name.replace("NAME", "S-1")).is_file(), name
    assert f"`{LABEL_SHEET}`" in TEXT
    assert first_row(folder / "manifest.csv") == names("### manifest.csv")
    with (folder / "manifest.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert set(json.loads(row["settings"])) == inner("### manifest.csv", "settings")
    assert set(json.loads(row["window"])) == set(CONTRASTS)


def test_config(place, hub_runs):
    both = set(read(place / "run" / "config.json")) | set(read(hub_runs / "pretrain" / "config.json"))
    assert both == names("### config.json")
    found = read(place / "run" / "config.json")
    assert set(found["data"]) == inner("### config.json", "data")
    assert set(found["model"]) == {"name", "fields"} == inner("### config.json", "model")
    assert set(found["precision"]) == inner("### config.json", "precision")


def test_metrics(place, hub_runs):
    files = [place / "run" / "fold_0" / "metrics.jsonl", hub_runs / "pretrain" / "metrics.jsonl"]
    lines = [json.loads(line) for path in files for line in path.read_text().splitlines()]
    assert set().union(*lines) == names("### metrics.jsonl")


def test_checkpoints(place):
    fold = place / "run" / "fold_0"
    with (fold / "checkpoint-0.pth").open("rb") as file:
        assert file.read().splitlines()[-1].startswith(b"SHA-256 ")
    found = set(read_checkpoint(fold / "checkpoint-0.pth")) | {"sealed"}  # which reading takes away
    assert found == names("### Checkpoints")
    best = set(read_checkpoint(fold / "best.pth")) | {"sealed"}
    (sentence,) = re.findall(r"`best.pth` has (.*?)\(", TEXT, re.DOTALL)
    assert best == set(re.findall(r"`(\w+)`", sentence))


def test_files_of_a_run(place):
    run = place / "run"
    below = TEXT[TEXT.index("\n## Run folder") : TEXT.index("\n### config.json")]
    present = {path.name for path in (*run.iterdir(), *(run / "fold_0").iterdir())}
    for name in ("folds.json", "predictions.csv", "results.json", "results.xlsx", "best.pth", "predictions_raw.csv",
                 "decision.json", "metrics.jsonl", ".lock", "config.json"):  # fmt: skip
        assert name in present, name
        assert f"`{name}`" in below, name


def test_folds(place):
    found = read(place / "run" / "folds.json")
    assert set(found) == names("### folds.json")
    assert set(found["design"]) == inner("### folds.json", "design")
    assert set(found["folds"][0]) == inner("### folds.json", "folds") & {"train", "test", "val"}


def test_predictions_and_decision(place):
    assert first_row(place / "run" / "predictions.csv") == names("### predictions.csv")
    assert set(read(place / "run" / "fold_0" / "decision.json")) == names("### decision.json")


def test_results(place):
    found = read(place / "run" / "results.json")
    assert set(found) == names("### results.json")
    metrics = set(re.findall(r"`(\w+)`", re.search(r"^Metrics: (.*?)$", TEXT, re.MULTILINE)[1]))
    assert set(found["pooled"]) == metrics
    assert set(found["per_fold"][0]) == metrics | {"fold", "n"}
    statistics = found["statistics"]
    assert set(statistics) == names("| field of `statistics`")
    assert set(statistics["delong"]) == inner("| field of `statistics`", "delong")
    baseline = found["baselines"][0]
    assert set(baseline) == inner("### results.json", "baselines")
    difference = baseline["model_minus_baseline"]
    assert set(difference) == names("| field of `model_minus_baseline`")
    for part in ("delong", "mcnemar", "folds"):
        assert set(difference[part]) == inner("| field of `model_minus_baseline`", part)
    titles = re.search(r"`results.xlsx` has the sheets (.*?)\.\n", TEXT)[1].replace(" and ", ", ").split(", ")
    assert openpyxl.load_workbook(place / "run" / "results.xlsx").sheetnames == titles


def test_comparison(place):
    found = read(place / "comparison" / "comparison.json")
    section = TEXT[TEXT.index("\n### comparison.json") : TEXT.index("\n## Exported")]
    told = set(re.findall(r"`(\w+)`", section))
    assert {*found, *found["runs"][0], "delong_holm_p"} <= told
    assert set(found["comparisons"][0]) == {"name", "delong_holm_p", *names("| field of `model_minus_baseline`")}


def test_patients_report(place):
    found = read(place / "predicted" / "S-1" / "report.json")
    assert set(found) == names("## Report of a patient")
    assert set(found["runs"][0]) == inner("## Report of a patient", "runs")
