"""A fold shows only its held-out subjects."""

import pytest

from util.protocol.folds import save_folds
from util.protocol.held_out import check_held_out, held_out, read_folds

FOLDS = [{"train": ["B", "D"], "test": ["C", "A"]}, {"train": ["A", "C"], "test": ["B"]}]


def write(folder, folds):
    save_folds(folder / "folds.json", folds, label_type="IDH", seed=0)
    return folder


def test_held_out_are_the_test_subjects_sorted(tmp_path):
    assert held_out(read_folds(write(tmp_path, FOLDS)), 0) == ["A", "C"]


def test_run_without_folds_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"folds\.json is missing"):
        read_folds(tmp_path)


def test_edited_folds_are_refused(tmp_path):
    path = write(tmp_path, FOLDS) / "folds.json"
    path.write_text(path.read_text().replace('"C"', '"B"'))
    with pytest.raises(ValueError, match=r"folds\.json was edited"):
        read_folds(tmp_path)


def test_fold_that_trains_on_what_it_tests_is_refused(tmp_path):
    with pytest.raises(ValueError, match='fold 0 both trains and tests on "A"'):
        read_folds(write(tmp_path, [{"train": ["A", "B"], "test": ["A"]}]))


def test_training_subject_is_refused_and_its_own_fold_named():
    with pytest.raises(ValueError, match=r'fold 0 trained on "B".*pass --fold 1'):
        check_held_out(["A", "B"], FOLDS, 0)
    with pytest.raises(ValueError, match="no fold holds it out"):
        check_held_out(["D"], FOLDS, 0)
    check_held_out(["A", "C", "7"], FOLDS, 0)


@pytest.mark.parametrize("fold", [-1, 2])
def test_unknown_fold(fold):
    with pytest.raises(ValueError, match="folds 0 to 1"):
        held_out(FOLDS, fold)
