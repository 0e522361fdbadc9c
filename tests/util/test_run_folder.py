import ast
from pathlib import Path

from util import run_folder
from util.run_folder import (
    checkpoint_path,
    checkpoint_place,
    fold_folder,
    fold_folders,
    fold_number,
    is_within_epoch,
)

ROOT = Path(__file__).resolve().parents[2]
NAMES = {
    run_folder.CONFIG, run_folder.METRICS, run_folder.STOPPED, run_folder.FOLDS, run_folder.BEST, run_folder.DECISION,
    run_folder.PREDICTIONS, run_folder.RAW_PREDICTIONS, run_folder.RESULTS, run_folder.WORKBOOK, run_folder.CONTRASTS,
    run_folder.CONTRASTS_TABLE, run_folder.CHECKPOINTS, run_folder.FOLD_FOLDERS, run_folder.EVENTS, "fold_",
    "checkpoint-",
}  # fmt: skip
OF_OTHER_FOLDERS = {("predict.py", run_folder.PREDICTIONS)}  # a table of patients, in the folder of predictions


def test_folds_are_found_by_number(tmp_path):
    for fold in (2, 10, 0, 11):  # neither in order nor in reverse
        fold_folder(tmp_path, fold).mkdir()
    (tmp_path / "fold_old").mkdir()
    assert list(fold_folders(tmp_path)) == [0, 2, 10, 11]
    assert fold_folders(tmp_path)[10] == tmp_path / "fold_10"
    assert fold_number(tmp_path / "fold_10") == 10
    assert fold_number(tmp_path / "fold_old") is None
    assert fold_folders(tmp_path / "nowhere") == {}


def test_a_checkpoint_s_name_says_its_place(tmp_path):
    assert checkpoint_place(checkpoint_path(tmp_path, 7)) == (7, None)
    assert checkpoint_place(checkpoint_path(tmp_path, 7, 3)) == (7, 3)
    assert checkpoint_place(tmp_path / "checkpoint-7.pth.damaged") is None
    assert is_within_epoch(checkpoint_path(tmp_path, 7, 0))
    assert not is_within_epoch(checkpoint_path(tmp_path, 7))


def spelled(text):
    """Names of a run folder's files that a source spells out."""
    return {node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)} & NAMES


def test_no_other_module_spells_the_names_of_a_run_folder():
    assert spelled('path = run / f"fold_{fold}" / "results.json"') == {"fold_", "results.json"}
    folders = [ROOT / name for name in ("ops", "models", "util", "vis", "benchmarks")]
    files = [*ROOT.glob("*.py"), *(path for folder in folders for path in folder.rglob("*.py"))]
    owner = Path(run_folder.__file__)
    found = {(path.relative_to(ROOT).as_posix(), name) for path in files if path != owner
             for name in spelled(path.read_text(encoding="utf-8"))}  # fmt: skip
    assert found == OF_OTHER_FOLDERS
