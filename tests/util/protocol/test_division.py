import json
from types import SimpleNamespace

import openpyxl
import pytest

from util.cli import Parser
from util.protocol.division import add_protocol_options, check_protocol, divide, protocol_facts

LABELS = {f"s{i:02d}": i % 2 for i in range(20)}


@pytest.fixture
def sheet(tmp_path):
    book = openpyxl.Workbook()
    book.active.append(["Subject", "Site", "Patient"])
    for i, name in enumerate(LABELS):
        book.active.append([name, "A" if i % 4 < 2 else "B", f"p{i // 4}"])
    book.save(tmp_path / "sheet.xlsx")
    return tmp_path / "sheet.xlsx"


def options(tmp_path, *words):
    parser = Parser()
    add_protocol_options(parser)
    more = {"output_dir": tmp_path / "run", "overwrite": False, "seed": 0, "label_type": "IDH", "class_weights": "none"}
    return SimpleNamespace(**vars(parser.parse_args(words)), **more)


def test_kept_folds_are_used_and_another_design_is_refused(tmp_path, sheet):
    args = options(tmp_path, "--repeats", "2", "--val_fraction", "0.25")
    division = divide(args, LABELS, sheet)
    division.save(args.output_dir, "IDH", 0)
    args.seed = 5
    assert divide(args, LABELS, sheet).folds == division.folds
    with pytest.raises(ValueError, match=r"made with --val_fraction 0.25, not 0.0"):
        divide(options(tmp_path, "--repeats", "2"), LABELS, sheet)
    with pytest.raises(ValueError, match="holds 10 folds, --k_fold 5 and --repeats 1 make 5"):
        divide(options(tmp_path, "--val_fraction", "0.25"), LABELS, sheet)
    args.overwrite = True
    assert divide(args, LABELS, sheet).folds != division.folds


def test_folds_of_a_run_without_a_recorded_design_are_used(tmp_path, sheet):
    args = options(tmp_path)
    divide(args, LABELS, sheet).save(args.output_dir, "IDH", 0)
    path = args.output_dir / "folds.json"
    content = json.loads(path.read_text())
    del content["design"]
    path.write_text(json.dumps(content))
    assert len(divide(args, LABELS, sheet).folds) == 5


def test_patients_come_from_the_sheet(tmp_path, sheet):
    division = divide(options(tmp_path, "--group_by", "Patient", "--k_fold", "2", "--repeats", "3"), LABELS, sheet)
    assert (division.repeats, division.k_fold, division.patients["s05"]) == (3, 2, "p1")
    for fold in division.folds:
        assert not {division.patients[s] for s in fold["train"]} & {division.patients[s] for s in fold["test"]}
    assert divide(options(tmp_path), LABELS, sheet).patients == {}


def test_imported_folds_must_keep_patients_together(tmp_path, sheet):
    (tmp_path / "f.csv").write_text("subject,fold\n" + "".join(f"{s},{i // 2 % 2}\n" for i, s in enumerate(LABELS)))
    words = ("--folds_csv", str(tmp_path / "f.csv"), "--k_fold", "2")
    assert len(divide(options(tmp_path, *words), LABELS, sheet).folds) == 2
    with pytest.raises(ValueError, match='trains and tests on patient "p0"'):
        divide(options(tmp_path, *words, "--group_by", "Patient"), LABELS, sheet)


def test_choices_and_the_hash_of_the_folds_are_stated(tmp_path, sheet):
    args = options(tmp_path, "--tta", "flip", "--control", "background")
    division = divide(args, LABELS, sheet)
    facts = protocol_facts(args, division)
    assert (facts["tta"], facts["control"], facts["k_fold"], facts["repeats"]) == ("flip", "background", 5, 1)
    division.save(args.output_dir, "IDH", 0)
    assert facts["folds_hash"] == json.loads((args.output_dir / "folds.json").read_text())["hash"]
    json.dumps(facts)


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--select", "best_val"], "--val_fraction 0.2"),
     (["--patience", "3", "--val_fraction", "0.2"], "use best_val"),
     (["--folds_csv", "x", "--stratify_by", "Site"], "drop --stratify_by")],
)  # fmt: skip
def test_contradictions_are_named(tmp_path, words, message):
    with pytest.raises(ValueError, match=message):
        check_protocol(options(tmp_path, *words))


def test_sound_options_pass(tmp_path):
    check_protocol(options(tmp_path))
    check_protocol(options(tmp_path, "--val_fraction", "0.2", "--select", "best_val", "--patience", "3"))
