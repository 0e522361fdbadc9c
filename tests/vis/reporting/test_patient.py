"""The report on a patient: its facts, and no name or warning becomes markup."""

import csv
import dataclasses
import json
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure

from tests.helpers.vis_cases import write_finetune_run, write_prepared
from util.inference.ensemble import EnsemblePrediction, open_ensemble
from util.patient.novelty import Novelty
from util.patient.who_2021 import ASTROCYTOMA, GLIOBLASTOMA
from util.protocol.decision import Decision
from vis.drawing.style import NOTICE
from vis.export.patient_maps import PatientMaps
from vis.reporting.patient import patient_facts, run_facts, write_patient_report, write_predictions_table

EVIL = '<script>alert("x")</script>'


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    data = write_prepared(folder / "data", ["A", "B"])
    return open_ensemble(write_finetune_run(folder / "run", data, ["A", "B"]), torch.device("cpu"))


def facts(ensemble, *, probability=0.8, codeleted=None, novelty=None, name="P", **changed):
    runs = [
        run_facts(
            ensemble,
            EnsemblePrediction({0: probability, 1: probability}, {}),
            novelty,
            "" if novelty else "why",
            PatientMaps(),
        )
    ]
    if codeleted is not None:
        runs.append({**runs[0], "label_type": "1p19q", "probability": codeleted})
    given = {"missing": [], "warnings": [], "seconds": {"predict": 1.234}, "environment": {"machine": "m", "git": None}}
    return patient_facts(name, {"t1": f"/data/{name}.nii"}, runs, **{**given, **changed})


def test_the_notice_comes_first_everywhere(tmp_path, ensemble):
    write_patient_report(tmp_path, facts(ensemble), [])
    assert (tmp_path / "report.json").read_text().splitlines()[1] == f'  "notice": "{NOTICE}",'
    html = (tmp_path / "report.html").read_text()
    assert html[html.index("<main>") :].index(NOTICE) < 60


def test_markup_in_names_stays_text(tmp_path, ensemble):
    write_patient_report(tmp_path, facts(ensemble, name=EVIL, warnings=[EVIL]), [(EVIL, Figure())])
    html = (tmp_path / "report.html").read_text()
    assert "<script" not in html
    assert html.count("&lt;script&gt;") >= 5
    assert json.loads((tmp_path / "report.json").read_text())["patient"] == EVIL


def test_the_report_needs_no_network(tmp_path, ensemble):
    write_patient_report(tmp_path, facts(ensemble), [("map", Figure())])
    html = (tmp_path / "report.html").read_text()
    assert "http" not in html
    assert html.count("data:image/png;base64,") == html.count("src=") == 1


def test_reasons_for_doubt(ensemble):
    assert facts(ensemble, novelty=Novelty(1.0, 0.4, 50))["unlike_training"] == []
    found = facts(ensemble, novelty=Novelty(3.2, 0.02, 50), missing=["t2"], warnings=["thick"])["unlike_training"]
    assert found[0].startswith("IDH: the distance to held-out subjects is 3.2 times the median")
    assert found[1:] == ["missing contrasts: t2", "thick"]


def test_the_who_type_needs_both_markers(ensemble):
    assert facts(ensemble)["who_2021"] is None
    assert facts(ensemble, codeleted=0.7)["who_2021"]["reading"].startswith("Oligodendroglioma")
    assert facts(ensemble)["runs"][0]["decision"] == "IDH mutant"
    assert facts(ensemble, probability=0.4)["runs"][0]["decision"] == "IDH wild type"


def test_the_table_has_a_row_for_every_patient(tmp_path, ensemble):
    path: Path = tmp_path / "predictions.csv"
    write_predictions_table(path, [facts(ensemble, codeleted=0.1, missing=["t1", "t2"])], {"Q": "no files"})
    with path.open() as file:
        first, second = csv.DictReader(file)
    assert (first["patient"], first["probability_IDH_mutant"], first["missing_contrasts"]) == ("P", "0.800000", "t1 t2")
    assert (first["probability_1p19q_codeleted"], first["unlike_training"]) == ("0.100000", "yes")
    assert (second["patient"], second["problem"], second["who_2021"]) == ("Q", "no files", "")


def test_decision_who_type_and_report_use_the_thresholds_of_the_runs(ensemble, tmp_path):
    decided = {0: Decision(1.5, 0.8, "best_val", "flip"), 1: Decision(1.5, 0.9, "best_val", "flip")}
    strict = dataclasses.replace(ensemble, decisions=decided)
    plain, found = facts(ensemble, codeleted=0.1), facts(strict, codeleted=0.1)
    assert (plain["runs"][0]["decision"], plain["who_2021"]["reading"]) == ("IDH mutant", ASTROCYTOMA)
    assert (found["runs"][0]["decision"], found["who_2021"]["reading"]) == ("IDH wild type", GLIOBLASTOMA)
    assert found["runs"][0]["threshold"] == pytest.approx(0.85)
    assert found["runs"][0]["decision_by_fold"]["1"] == {"temperature": 1.5, "threshold": 0.9, "select": "best_val",
                                                         "tta": "flip"}  # fmt: skip
    write_patient_report(tmp_path, found, [])
    html = (tmp_path / "report.html").read_text()
    for words in (
        "IDH wild type (threshold 0.85)",
        "mirror image",
        "temperatures 1.500, 1.500",
        "selected on the validation set",
    ):
        assert words in html
    write_patient_report(tmp_path, plain, [])
    html = (tmp_path / "report.html").read_text()
    assert "IDH mutant (threshold 0.5)" in html
    assert not any(words in html for words in ("mirror image", "temperature", "validation set"))
