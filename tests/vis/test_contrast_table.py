"""Every subset of contrasts is scored on held-out subjects, with the predictions of the model."""

import csv
import json
from dataclasses import asdict

import openpyxl
import pytest
import torch

from tests.helpers.vis_cases import save_weights, tiny_classifier, write_finetune_run, write_prepared
from util import cli
from util.data.dataset import PreparedVolumes
from util.inference.probabilities import probabilities
from util.protocol.decision import Decision
from util.statistics.metrics import classification_metrics
from vis.contrast_table import main, subsets

SUBJECTS = ["A", "B", "C", "D", "E", "F", "G", "H"]
LABELS = [0, 0, 1, 1, 0, 0, 1, -1]


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(cli, "setup_logging", lambda *_: None)
    data = write_prepared(tmp_path / "data", SUBJECTS)
    book = openpyxl.Workbook()
    book.active.append(["Subject", "IDH"])
    for row in zip(SUBJECTS, LABELS):
        book.active.append(row)
    book.save(data / "labels.xlsx")
    return write_finetune_run(tmp_path / "run", data, SUBJECTS)


def train_for_missing(run):
    classifier = tiny_classifier(contrast_dropout=0.3)
    config = json.loads((run / "config.json").read_text())
    config["model"]["fields"] = asdict(classifier.config)
    config["data"]["labels"] = str(run.parent / "data" / "labels.xlsx")
    (run / "config.json").write_text(json.dumps(config))
    torch.nn.init.normal_(classifier.head.weight)
    torch.nn.init.normal_(classifier.patch_embed.missing_contrast)
    for fold in range(2):
        save_weights(run / f"fold_{fold}" / "checkpoint-4.pth", classifier)
    return classifier.eval()


def test_fifteen_subsets_the_largest_first():
    found = subsets(("t1", "t2", "t1ce", "flair"))
    assert len(found) == len(set(found)) == 15
    assert (found[0], found[-1]) == (("t1", "t2", "t1ce", "flair"), ("flair",))


def test_rows_are_scores_of_held_out_subjects(run, tmp_path):
    model = train_for_missing(run)
    main(["--run", str(run), "--device", "cpu", "--out", str(tmp_path)])
    rows = json.loads((tmp_path / "contrasts.json").read_text())["rows"]
    assert len(rows) == 15
    volumes = PreparedVolumes(run.parent / "data")
    for row in (rows[0], rows[6], rows[-1]):
        scores = []
        for index in range(7):  # all but H, whose label is unknown
            scan = volumes[index][0].unsqueeze(0)
            scan[:, [c not in row["contrasts"] for c in volumes.contrasts]] = 0
            scores.append(probabilities(model, scan)[0, 1].item())
        assert row["n"] == 7
        assert row["auc"] == pytest.approx(classification_metrics(LABELS[:7], scores)["auc"])
    with (tmp_path / "contrasts.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["contrasts"] for row in table] == [" ".join(row["contrasts"]) for row in rows]


def test_scores_are_of_the_runs_own_decisions(run, tmp_path):
    train_for_missing(run)
    for fold, threshold in ((0, 0.0), (1, 1.0)):  # fold 0 calls everybody class 1, fold 1 nobody
        Decision(2.0, threshold, tta="flip").save(run / f"fold_{fold}")
    main(["--run", str(run), "--device", "cpu", "--out", str(tmp_path)])
    row = json.loads((tmp_path / "contrasts.json").read_text())["rows"][0]
    called = [1 - index % 2 for index in range(7)]
    assert row["accuracy"] == pytest.approx(sum(c == label for c, label in zip(called, LABELS)) / 7)


def test_a_run_that_needs_all_contrasts_is_refused(run):
    with pytest.raises(ValueError, match="or a run that was fine-tuned with --contrast_dropout"):
        main(["--run", str(run), "--device", "cpu"])
