import json

import pytest

from util.folds import load_folds, make_folds, save_folds

LABELS = {f"s{i:02d}": int(i % 3 == 0) for i in range(30)}  # 10 of class 1, 20 of class 0


def test_every_subject_is_tested_once_and_never_trained_on_in_that_fold():
    folds = make_folds(LABELS, 5, seed=0)
    assert sorted(name for fold in folds for name in fold["test"]) == sorted(LABELS)
    for fold in folds:
        assert not set(fold["train"]) & set(fold["test"])
        assert set(fold["train"]) | set(fold["test"]) == set(LABELS)
        assert sum(LABELS[name] for name in fold["test"]) == 2  # stratified


def test_folds_depend_on_labels_and_seed_only():
    shuffled = dict(reversed(LABELS.items()))
    assert make_folds(shuffled, 5, seed=0) == make_folds(LABELS, 5, seed=0) != make_folds(LABELS, 5, seed=1)


@pytest.mark.parametrize(
    ("labels", "k", "message"),
    [
        ({"a": 0, "b": 0, "c": 1}, 2, "class 1 has 1 subjects"),
        ({"a": 0, "b": 0}, 2, "nothing to learn"),
        (LABELS, 1, "k_fold 1"),
    ],
)
def test_impossible_folds_are_refused(labels, k, message):
    with pytest.raises(ValueError, match=message):
        make_folds(labels, k, seed=0)


def test_saved_folds_come_back_and_edits_are_noticed(tmp_path):
    path, folds = tmp_path / "folds.json", make_folds(LABELS, 5, seed=0)
    save_folds(path, folds, label_type="IDH", seed=0)
    assert load_folds(path, LABELS, "IDH") == folds
    with pytest.raises(ValueError, match="folds for IDH, not 1p19q"):
        load_folds(path, LABELS, "1p19q")
    with pytest.raises(ValueError, match="differ in 1 subjects"):
        load_folds(path, {**LABELS, "new": 1}, "IDH")
    content = json.loads(path.read_text())
    content["folds"][0]["test"].append(content["folds"][0]["train"].pop())
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="was edited"):
        load_folds(path, LABELS, "IDH")
