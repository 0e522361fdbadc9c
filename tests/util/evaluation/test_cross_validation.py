import json
import logging

import numpy as np
import pytest

from tests.helpers.egd_sheet import write_egd_sheet
from tests.helpers.prepared import make_prepared
from util.data.dataset import PreparedVolumes
from util.data.folder import LABEL_SHEET, segmentation_path
from util.evaluation.cross_validation import BaselineData, gather_results, subgroups
from util.evaluation.predictions import Prediction, write_predictions
from util.protocol.division import Division
from util.protocol.folds import make_folds


@pytest.fixture
def data(tmp_path):
    root = make_prepared(tmp_path / "data", count=12, unknown=0)
    (root / "seg_mask").mkdir()
    for index in range(12):
        mask = np.zeros((16, 16, 16), np.uint8)
        mask[4 : 6 + index % 4, 4:8, 4:8] = 1
        np.save(segmentation_path(root, f"sub-{index:02d}"), mask)
    labels = {f"sub-{i:02d}": i % 2 for i in range(12)}
    volumes = PreparedVolumes(root, labels=labels)
    division = Division(make_folds(labels, 3, 0), {}, 3, {})
    return BaselineData(volumes, volumes, root / LABEL_SHEET, division, "all")


def write_folds(run, division, folds):
    for fold in folds:
        found = [
            Prediction(s, fold, int(s[4:]) % 2, 0.3 + 0.01 * i) for i, s in enumerate(division.folds[fold]["test"])
        ]
        (run / f"fold_{fold}").mkdir(parents=True)
        write_predictions(run / f"fold_{fold}" / "predictions.csv", found)


def test_whatever_folds_exist_are_evaluated_beside_their_baselines(tmp_path, data, caplog):
    caplog.set_level(logging.INFO)
    run = tmp_path / "run"
    write_folds(run, data.division, [0, 2])
    results = gather_results(run, data, "IDH", 7, {"select": "last"})
    assert (results["missing_folds"], results["n"], results["n_unknown"]) == ([1], 8, 7)
    names = [entry["name"] for entry in results["baselines"]]
    assert names == ["majority class", "tumour volume and location", "intensity"]
    assert all(entry["statistics"]["n"] == 8 for entry in results["baselines"])
    bright = results["baselines"][2]["statistics"]["pooled"]["auc"]["value"]
    assert bright == 1  # the blob that marks class 1 raises the intensities
    assert json.loads((run / "results.json").read_text())["protocol"] == {"select": "last"}
    assert "folds that have not run: 1" in caplog.text
    assert "tumour volume and location" in caplog.text


def test_codeletion_is_also_judged_within_idh_mutants(tmp_path):
    write_egd_sheet(tmp_path / "egd.xlsx")
    mutants = subgroups(tmp_path / "egd.xlsx", "1p19q")["within IDH mutant"]
    assert len(mutants) == 155
    assert subgroups(tmp_path / "egd.xlsx", "IDH") == {}
