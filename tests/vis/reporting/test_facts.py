"""The facts of a report come from the run folders; unrelated runs are not combined."""

import json
import os
import shutil
from pathlib import Path

import pytest

import vis.reporting.facts as report_facts
from tests.helpers.vis_cases import write_autoregressive_run, write_finetune_run, write_prepared, write_pretrain_run
from vis.reporting.facts import (
    NOT_DEFINED,
    find_runs,
    finetune_facts,
    fold_table,
    format_number,
    origin,
    pretrain_facts,
)

SUBJECTS = ["A", "B", "C", "D"]


@pytest.fixture
def runs(tmp_path):
    data = write_prepared(tmp_path / "data", SUBJECTS)
    pre = write_pretrain_run(tmp_path / "pre", data)
    return pre, write_finetune_run(tmp_path / "fine", data, SUBJECTS, finetune=pre / "checkpoint-1.pth")


def details(facts):
    return dict(facts.details)


def test_pretraining(runs):
    facts = pretrain_facts(runs[0])
    assert [row["train_loss"] for row in facts.rows] == [0.9, 0.4]
    found = details(facts)
    assert found["Command"] == "main_pretrain.py --model mae_3d_vim_tiny_patch8"
    assert found["Mask ratio"].startswith("50%")
    assert "width 24, 2 blocks, patch 8, volumes 16 x 24 x 16" in found["Model"]
    assert found["Speed"] == "2.0 minutes of training, 2.00 subjects per second"
    assert found["Code"] == "git abc123"
    assert "torch 2.14.1" in found["Versions"]


def test_an_autoregressive_run_says_its_task_and_order(tmp_path):
    data = write_prepared(tmp_path / "data", SUBJECTS)
    found = details(pretrain_facts(write_autoregressive_run(tmp_path / "ar", data, scan_order="snake")))
    assert found["Autoregressive"].startswith("each patch predicted")
    assert found["Model"].endswith("scan order snake")


def test_finetuning(runs):
    facts = finetune_facts(runs[1])
    assert sorted(facts.rows_of_fold) == [0, 1]
    assert len(facts.predictions) == 4
    assert facts.results is not None
    assert facts.results["n_unknown"] == 3
    assert details(facts)["Started from"].endswith("checkpoint-1.pth")
    assert not facts.phantom


def test_the_curves_are_of_all_folds_of_all_repeats(runs):
    shutil.copytree(runs[1] / "fold_1", runs[1] / "fold_2")  # config.json says k_fold 2
    assert sorted(finetune_facts(runs[1]).rows_of_fold) == [0, 1, 2]


def test_run_without_results_or_metrics(runs):
    for name in ("results.json", "predictions.csv", "fold_0/metrics.jsonl"):
        (runs[1] / name).unlink()
    facts = finetune_facts(runs[1])
    assert facts.results is None
    assert facts.predictions == []
    assert list(facts.rows_of_fold) == [1]


def test_phantoms_are_marked(runs):
    root = Path(json.loads((runs[0] / "config.json").read_text())["data"]["root"])
    (root / "t1" / "PhantomBraTS-0001_t1.npy").touch()
    assert pretrain_facts(runs[0]).phantom


def test_wrong_kind_names_the_flag(runs):
    with pytest.raises(ValueError, match="not a pretrain run; give it as --finetune"):
        pretrain_facts(runs[1])
    with pytest.raises(ValueError, match="not a finetune run; give it as --pretrain"):
        finetune_facts(runs[0])


def test_a_finetuning_run_comes_with_its_pretraining_run(runs):
    assert find_runs(None, runs[1]) == runs
    assert find_runs(runs[0], None) == (runs[0], None)
    assert origin({"finetune": None}) is None
    assert origin({"finetune": "/nowhere/checkpoint-1.pth"}) is None


def test_newest_runs_by_default(runs, monkeypatch):
    newest = report_facts.newest_run
    monkeypatch.setattr(report_facts, "newest_run", lambda kind: newest([runs[0].parent], kind))
    os.utime(runs[0] / "config.json", (1, 1))
    assert find_runs(None, None) == runs
    (runs[1] / "config.json").unlink()
    assert find_runs(None, None) == (runs[0], None)
    (runs[0] / "config.json").unlink()
    with pytest.raises(ValueError, match="no pretrain run"):
        find_runs(None, None)


def test_table_has_folds_mean_sd_and_pooled(runs):
    results = finetune_facts(runs[1]).results
    assert results is not None
    header, rows = fold_table(results)
    assert header == ["Fold", "Subjects", "Accuracy", "F1", "AUC", "Sensitivity", "Specificity"]
    assert [kind for kind, _ in rows] == ["fold", "fold", "mean", "sd", "pooled"]
    assert rows[0][1] == ["0", "2", "1.000", "1.000", "0.875", "1.000", NOT_DEFINED]
    assert rows[3][1][4] == "0.012"
    assert rows[-1][1][:2] == ["All folds pooled", "4"]
    assert rows[-1][1][4] == "0.912"


def test_undefined_numbers_are_a_dash():
    assert [format_number(value) for value in (None, float("nan"), 0.12345)] == [NOT_DEFINED, NOT_DEFINED, "0.123"]
