import json

import openpyxl
import pytest

from util.options.groups import RunOptions
from util.options.protocol import ProtocolOptions
from util.protocol.division import divide, protocol_facts

LABELS = {f"s{i:02d}": i % 2 for i in range(20)}


@pytest.fixture
def sheet(tmp_path):
    book = openpyxl.Workbook()
    book.active.append(["Subject", "Site", "Patient"])
    for i, name in enumerate(LABELS):
        book.active.append([name, "A" if i % 4 < 2 else "B", f"p{i // 4}"])
    book.save(tmp_path / "sheet.xlsx")
    return tmp_path / "sheet.xlsx"


@pytest.fixture
def divided(tmp_path, sheet):
    """Divide the subjects by these options of the protocol; `run` holds those of the run."""

    def division(run=None, **protocol):
        run = RunOptions(output_dir=tmp_path / "run", **(run or {}))
        return divide(ProtocolOptions(**protocol), LABELS, sheet, run, "IDH")

    return division


def test_kept_folds_are_used_and_another_design_is_refused(tmp_path, divided):
    protocol = {"repeats": 2, "val_fraction": 0.25}
    division = divided(**protocol)
    division.save(tmp_path / "run", "IDH", 0)
    assert divided({"seed": 5}, **protocol).folds == division.folds
    with pytest.raises(ValueError, match=r"made with --val_fraction 0.25, not 0.0"):
        divided(repeats=2)
    with pytest.raises(ValueError, match="holds 10 folds, --k_fold 5 and --repeats 1 make 5"):
        divided(val_fraction=0.25)
    assert divided({"seed": 5, "overwrite": True}, **protocol).folds != division.folds


def test_folds_of_a_run_without_a_recorded_design_are_used(tmp_path, divided):
    division = divided()
    division.save(tmp_path / "run", "IDH", 0)
    path = tmp_path / "run" / "folds.json"
    content = json.loads(path.read_text())
    del content["design"]
    path.write_text(json.dumps(content))
    assert divided({"seed": 5}).folds == division.folds


def test_patients_come_from_the_sheet(divided):
    division = divided(group_by="Patient", k_fold=2, repeats=3)
    assert (division.repeats, division.k_fold, division.patients["s05"]) == (3, 2, "p1")
    for fold in division.folds:
        assert not {division.patients[s] for s in fold["train"]} & {division.patients[s] for s in fold["test"]}
    assert divided().patients == {}


def test_imported_folds_must_keep_patients_together(tmp_path, divided):
    path = tmp_path / "f.csv"
    path.write_text("subject,fold\n" + "".join(f"{s},{i // 2 % 2}\n" for i, s in enumerate(LABELS)))
    assert len(divided(folds_csv=path, k_fold=2).folds) == 2
    with pytest.raises(ValueError, match='trains and tests on patient "p0"'):
        divided(folds_csv=path, k_fold=2, group_by="Patient")


def test_choices_and_the_hash_of_the_folds_are_stated(tmp_path, divided):
    protocol = {"tta": "flip", "control": "background"}
    division = divided(**protocol)
    facts = protocol_facts(ProtocolOptions(**protocol), division, seed=3, class_weights="balanced")
    assert (facts["tta"], facts["control"], facts["k_fold"], facts["repeats"]) == ("flip", "background", 5, 1)
    assert (facts["seed"], facts["class_weights"]) == (3, "balanced")
    division.save(tmp_path / "run", "IDH", 0)
    assert facts["folds_hash"] == json.loads((tmp_path / "run" / "folds.json").read_text())["hash"]
    json.dumps(facts)


def test_time_points_of_a_patient_stay_together(tmp_path, caplog):
    names = [f"P-{patient:03d}-00{visit}" for patient in range(12) for visit in range(2)]
    labels = {name: int(name[2:5]) % 2 for name in names}
    run = RunOptions(output_dir=tmp_path / "run")
    options = ProtocolOptions(k_fold=3, val_fraction=0.3)
    for fold in divide(options, labels, tmp_path / "no.xlsx", run, "IDH", tmp_path).folds:
        parts = [{name[:5] for name in part} for part in fold.values()]
        assert len(parts) == 3
        assert sum(map(len, parts)) == 12  # nobody is in two of them
    assert "24 subjects look like 12 patients" in caplog.text
    csv = tmp_path / "f.csv"
    csv.write_text("subject,fold\n" + "".join(f"{name},{number % 3}\n" for number, name in enumerate(names)))
    with pytest.raises(ValueError, match=r'fold 0 trains and tests on patient "P-000-000" .*--group_by'):
        divide(ProtocolOptions(k_fold=3, folds_csv=csv), labels, tmp_path / "no.xlsx", run, "IDH", tmp_path)
