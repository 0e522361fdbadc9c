import json

import pytest

from util.protocol.folds import load_folds, make_folds, save_folds, set_aside

LABELS = {f"s{i:02d}": int(i % 3 == 0) for i in range(30)}  # 10 of class 1, 20 of class 0
PATIENTS = {f"s{i:02d}": f"p{i // 2}" for i in range(30)}


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


def test_repeats_have_different_folds_and_the_first_is_that_of_a_single_run():
    folds = make_folds(LABELS, 5, seed=0, repeats=3)
    assert len(folds) == 15
    assert folds[:5] == make_folds(LABELS, 5, seed=0)
    for repeat in range(3):
        part = folds[5 * repeat : 5 * repeat + 5]
        assert sorted(name for fold in part for name in fold["test"]) == sorted(LABELS)
    assert folds[:5] != folds[5:10] != folds[10:]


def test_folds_are_stratified_by_a_second_column_too():
    labels = {f"s{i:02d}": i % 2 for i in range(40)}
    grade = {f"s{i:02d}": str(2 + (i // 2) % 2) for i in range(40)}  # 10 of every pair of label and grade
    for fold in make_folds(labels, 5, seed=0, strata=grade):
        for label in (0, 1):
            for value in ("2", "3"):
                assert sum(labels[s] == label and grade[s] == value for s in fold["test"]) == 2


def test_strata_too_rare_for_the_folds_are_merged():
    rare = {name: "only here" if name in ("s01", "s02", "s03") else "" for name in LABELS}
    folds = make_folds(LABELS, 5, seed=0, strata=rare)
    assert all(sum(LABELS[name] for name in fold["test"]) == 2 for fold in folds)


def test_a_patients_subjects_stay_on_one_side():
    for fold in make_folds(LABELS, 5, seed=0, patients=PATIENTS):
        assert not {PATIENTS[s] for s in fold["train"]} & {PATIENTS[s] for s in fold["test"]}
        assert {LABELS[s] for s in fold["test"]} == {0, 1}


def test_an_unnamed_patient_is_a_subject_of_its_own():
    unnamed = dict.fromkeys(LABELS, "")
    folds = make_folds(LABELS, 5, seed=0, patients=unnamed)
    assert sorted(len(fold["test"]) for fold in folds) == [6] * 5


def test_validation_comes_out_of_the_training_part_only():
    plain = make_folds(LABELS, 5, seed=0, patients=PATIENTS)
    folds = set_aside(plain, LABELS, 0.25, seed=0, patients=PATIENTS)
    for before, after in zip(plain, folds, strict=True):
        assert after["test"] == before["test"]
        assert sorted(after["train"] + after["val"]) == before["train"]
        assert not {PATIENTS[s] for s in after["train"]} & {PATIENTS[s] for s in after["val"]}
        assert {LABELS[s] for s in after["val"]} == {0, 1}
    assert folds[0]["val"] != folds[1]["val"]
    assert set_aside(plain, LABELS, 0.25, seed=0, patients=PATIENTS) == folds


@pytest.mark.parametrize(
    ("labels", "k", "options", "message"),
    [
        ({"a": 0, "b": 0, "c": 1}, 2, {}, "class 1 has 1 subjects"),
        ({"a": 0, "b": 0}, 2, {}, "nothing to learn"),
        (LABELS, 1, {}, "k_fold 1"),
        (LABELS, 5, {"repeats": 0}, "--repeats 0"),
        (LABELS, 5, {"patients": dict.fromkeys(LABELS, "one")}, "class . has 1 patients, fewer than --k_fold 5"),
    ],
)
def test_impossible_folds_are_refused(labels, k, options, message):
    with pytest.raises(ValueError, match=message):
        make_folds(labels, k, seed=0, **options)


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 0.01])
def test_impossible_validation_parts_are_refused(fraction):
    with pytest.raises(ValueError, match="--val_fraction"):
        set_aside(make_folds(LABELS, 5, seed=0), LABELS, fraction, seed=0)


def test_saved_folds_are_read_and_edits_are_detected(tmp_path):
    path, folds = tmp_path / "folds.json", set_aside(make_folds(LABELS, 5, seed=0, repeats=2), LABELS, 0.2, 0)
    save_folds(path, folds, label_type="IDH", seed=0, design={"k_fold": 5})
    assert load_folds(path, LABELS, "IDH") == folds
    assert json.loads(path.read_text())["design"] == {"k_fold": 5}
    with pytest.raises(ValueError, match="folds for IDH, not 1p19q"):
        load_folds(path, LABELS, "1p19q")
    with pytest.raises(ValueError, match="differ in 1 subjects"):
        load_folds(path, {**LABELS, "new": 1}, "IDH")
    content = json.loads(path.read_text())
    content["folds"][0]["test"].append(content["folds"][0]["train"].pop())
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="was edited"):
        load_folds(path, LABELS, "IDH")


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        ([{"train": ["b"], "test": ["a"]}, {"train": ["a"], "test": ["a", "b"]}], "more often than others"),
        ([{"train": ["a", "b"], "test": ["a"]}, {"train": ["a"], "test": ["b"]}], '"a" in two of its parts'),
    ],
)
def test_folds_that_leak_are_refused_even_with_a_right_hash(tmp_path, folds, message):
    save_folds(tmp_path / "folds.json", folds, label_type="IDH", seed=0)
    with pytest.raises(ValueError, match=message):
        load_folds(tmp_path / "folds.json", {"a": 0, "b": 1}, "IDH", remedy="fix it")
