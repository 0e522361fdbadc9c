import json

import openpyxl
import pytest

from compare import main, short_names
from tests.helpers.score_cases import binormal, predictions
from util import cli
from util.evaluation.predictions import write_predictions


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    monkeypatch.setattr(cli, "setup_logging", lambda: None)


@pytest.fixture
def runs(tmp_path):
    labels, (a, b, c) = binormal(0, 20, 30, distance=1.5, runs=3)
    found = []
    for name, one in (("a", a), ("b", b), ("c", c)):
        (tmp_path / name).mkdir()
        write_predictions(tmp_path / name / "predictions.csv", predictions(labels, one))
        (tmp_path / name / "results.json").write_text(json.dumps({"label_type": "IDH"}))
        found.append(tmp_path / name)
    return found


def drop(run, subject):
    lines = (run / "predictions.csv").read_text().splitlines()
    (run / "predictions.csv").write_text("\n".join(line for line in lines if not line.startswith(subject)) + "\n")


def test_every_run_is_compared_with_the_first(runs, tmp_path, caplog):
    caplog.set_level("INFO")
    main([*map(str, runs), "--out", str(tmp_path / "out")])
    content = json.loads((tmp_path / "out" / "comparison.json").read_text(), parse_constant=pytest.fail)
    assert [run["name"] for run in content["runs"]] == ["a", "b", "c"]
    assert [entry["name"] for entry in content["comparisons"]] == ["b", "c"]
    areas = {run["name"]: run["statistics"]["pooled"]["auc"]["value"] for run in content["runs"]}
    for entry in content["comparisons"]:
        difference = areas[entry["name"]] - areas["a"]
        assert entry["differences"]["auc"]["value"] == pytest.approx(difference)
        assert entry["delong"]["difference"] == pytest.approx(difference)
        assert entry["delong_holm_p"] >= entry["delong"]["p"]
        assert entry["folds"]["df"] == 4
    book = openpyxl.load_workbook(tmp_path / "out" / "comparison.xlsx")
    assert book["runs"]["C3"].value == pytest.approx(areas["b"])
    assert (tmp_path / "out" / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert "AUC minus first" in caplog.text


def test_unequal_subjects_are_an_error_that_names_them_or_are_left_out(runs, tmp_path):
    drop(runs[1], "s004")
    with pytest.raises(ValueError, match=r'only in a: "s004"'):
        main([*map(str, runs), "--out", str(tmp_path / "out")])
    main([*map(str, runs), "--out", str(tmp_path / "out"), "--common"])
    content = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert {run["statistics"]["n"] for run in content["runs"]} == {49}


def test_the_seed_changes_the_intervals(runs, tmp_path):
    for seed in ("0", "1"):
        main([*map(str, runs[:2]), "--out", str(tmp_path / seed), "--seed", seed])
    a, b = (json.loads((tmp_path / seed / "comparison.json").read_text())["comparisons"][0] for seed in ("0", "1"))
    assert a["differences"]["auc"]["low"] != b["differences"]["auc"]["low"]
    assert a["delong"] == b["delong"]


def test_a_predictions_file_may_stand_for_its_run(runs, tmp_path):
    main([str(runs[0] / "predictions.csv"), str(runs[1]), "--out", str(tmp_path / "out")])
    content = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert content["reference"] == "predictions.csv"


def test_bad_sets_of_runs_are_named(runs, tmp_path):
    with pytest.raises(ValueError, match="at least two"):
        main([str(runs[0])])
    with pytest.raises(ValueError, match="given twice"):
        main([str(runs[0]), str(runs[0])])
    with pytest.raises(ValueError, match=r"nowhere.*is missing"):
        main([str(runs[0]), str(tmp_path / "nowhere")])
    (runs[1] / "results.json").write_text(json.dumps({"label_type": "1p19q"}))
    with pytest.raises(ValueError, match="different labels: a IDH, b 1p19q"):
        main([*map(str, runs[:2])])


def test_names_are_as_short_as_they_can_be(tmp_path):
    assert short_names([tmp_path / "x" / "idh", tmp_path / "y" / "idh"]) == ["x/idh", "y/idh"]
    assert short_names([tmp_path / "x", tmp_path / "y"]) == ["x", "y"]
