"""Sentences and numbers of the report."""

import base64

import pytest
from matplotlib.figure import Figure

from util.evaluation.predictions import Prediction
from vis.reporting.facts import FinetuneFacts, PretrainFacts
from vis.reporting.sections import encoded, finetune_section, loss_sentence, phantom_text, pretrain_section, tiles

SCORES = {"accuracy": 0.9, "f1": 0.8, "auc": 0.95, "sensitivity": 0.7, "specificity": None}
NO_EXAMPLES = {"examples": [], "problem": ""}


def pretrain(folder, rows, *, phantom=False, norm_pix_loss=False, mask_ratio=0.75):
    config = {"mask_ratio": mask_ratio, "model": {"fields": {"norm_pix_loss": norm_pix_loss}}}
    return PretrainFacts(folder, config, [("Command", "x")], phantom, rows)


def finetune(folder, *, missing=(), results=True, phantom=False):
    summary = {
        "n": 3, "n_unknown": 7, "missing_folds": list(missing), "per_fold": [{"fold": 0, "n": 3, **SCORES}],
        "mean": SCORES, "sd": SCORES, "pooled": SCORES,
    }  # fmt: skip
    predictions = [Prediction("C", 0, 1, 0.9), Prediction("A", 0, 0, 0.2), Prediction("B", 0, 0, 0.6)]
    rows = {0: [{"epoch": 0, "train_loss": 0.5, "test_auc": 0.9}]}
    config = {"label_type": "IDH", "k_fold": 5}
    return FinetuneFacts(
        folder, config, [], phantom, rows, summary if results else None, predictions if results else []
    )


@pytest.mark.parametrize(
    ("loss", "baseline", "words"),
    [
        (0.3, 0.4, "25% below the baseline that predicts the mean of each patch (0.400)"),
        (0.5, 0.4, "not below the baseline"),
        (0.3, None, "loss on removed patches is 0.300."),
    ],
)
def test_the_loss_is_compared_with_the_baseline(tmp_path, loss, baseline, words):
    row = {"epoch": 9, "train_loss": loss, **({"baseline_loss": baseline} if baseline else {})}
    sentence = loss_sentence(pretrain(tmp_path, [row]))
    assert sentence.startswith("After 10 epochs")
    assert words in sentence


def test_run_without_an_epoch(tmp_path):
    section = pretrain_section(pretrain(tmp_path, []), NO_EXAMPLES)
    assert section["curve"] is None
    assert section["loss"] == "No epoch has finished yet."
    assert tiles(pretrain(tmp_path, []), None) == []


def test_normalised_patches_are_explained_where_used(tmp_path):
    assert pretrain_section(pretrain(tmp_path, []), NO_EXAMPLES)["norm_pix"] == ""
    assert "restored" in pretrain_section(pretrain(tmp_path, [], norm_pix_loss=True), NO_EXAMPLES)["norm_pix"]


def test_cohort_and_missing_folds_are_stated(tmp_path):
    section = finetune_section(finetune(tmp_path, missing=[2, 4]), NO_EXAMPLES)
    assert section["cohort"] == (
        "3 subjects have a known label (2 IDH wild type, 1 IDH mutant); 7 of unknown label were excluded."
    )
    assert "2, 4" in section["missing"]
    assert [p.subject for p in section["predictions"]] == ["A", "B", "C"]
    assert finetune_section(finetune(tmp_path), NO_EXAMPLES)["missing"] == ""


def test_unfinished_cross_validation_has_curves_but_no_table(tmp_path):
    section = finetune_section(finetune(tmp_path, results=False), NO_EXAMPLES)
    assert section["table"] is None
    assert section["curve"] is not None


def test_tiles_are_the_headline_numbers(tmp_path):
    rows = [{"epoch": 0, "train_loss": 0.3, "baseline_loss": 0.4}]
    found = tiles(pretrain(tmp_path, rows), finetune(tmp_path))
    assert found[0] == ("0.950", "pooled held-out AUC, IDH")
    assert ("3", "held-out subjects; 7 of unknown label excluded") in found
    assert found[-1][0] == "0.300"


def test_phantoms_are_named_by_use(tmp_path):
    simulated, real = pretrain(tmp_path, [], phantom=True), finetune(tmp_path)
    assert phantom_text(simulated, real).startswith("The pre-training data are simulated")
    assert "pre-training and fine-tuning" in phantom_text(simulated, finetune(tmp_path, phantom=True))
    assert phantom_text(None, real) == ""


def test_figures_are_encoded_at_their_width():
    found = encoded(Figure(figsize=(2.5, 1)))
    assert found["width"] == 240
    assert base64.b64decode(found["png"]).startswith(b"\x89PNG")


def test_the_pretraining_task_is_that_of_the_run(tmp_path):
    assert pretrain_section(pretrain(tmp_path, []), NO_EXAMPLES)["task"].startswith("A masked autoencoder")
    autoregressive = pretrain(tmp_path, [], mask_ratio=None)
    assert pretrain_section(autoregressive, NO_EXAMPLES)["task"].startswith("An autoregressive model")
