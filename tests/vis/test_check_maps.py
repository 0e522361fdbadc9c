"""check_maps.py on a tiny run: held-out subjects only, its files, and every option."""

import csv
import json
import shutil

import pytest
import torch

import vis.check_maps
from models import VolumeClassifier
from tests.helpers.vis_cases import tiny_classifier, write_finetune_run, write_prepared
from util import cli
from vis.check_maps import main

SUBJECTS = ["A", "B", "C", "D"]  # fold 0 holds out A and C, fold 1 B and D


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("check")
    data = write_prepared(root / "data", SUBJECTS)
    write_prepared(root / "other", ["A", "B", "C", "D", "E"])
    write_finetune_run(root / "shuffled", data, ["A", "C", "B", "D"])  # other folds: A and B, C and D
    config = json.loads((root / "shuffled" / "config.json").read_text())
    (root / "shuffled" / "config.json").write_text(json.dumps({**config, "args": {"control": "shuffled_labels"}}))
    for fold in (0, 1):
        other = tiny_classifier()
        torch.nn.init.normal_(other.norm_f.weight)
        torch.save({"model": other.state_dict()}, root / "shuffled" / f"fold_{fold}" / "checkpoint-5.pth")
    return write_finetune_run(root / "run", data, SUBJECTS)


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    monkeypatch.setattr(cli, "setup_logging", lambda: None)


@pytest.fixture
def check(run, tmp_path, monkeypatch):
    """Run the program without drawing. Returns the scores by (subject, method) and the facts."""
    monkeypatch.setattr(vis.check_maps, "save_png", lambda path, figure: None)
    monkeypatch.setattr(vis.check_maps, "map_check_chart", lambda *_, **__: None)

    def check(*flags, maps=("max",)):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        main(["--run", str(run), "--out", str(folder), "--device", "cpu", "--map", *maps, *flags])
        rows = list(csv.DictReader((folder / "scores.csv").read_text().splitlines()))
        facts = json.loads((folder / "truth.json").read_text())
        return {(row["subject"], row["method"]): row for row in rows}, facts

    return check


def test_everything_is_written_and_every_subject_is_scored_by_its_own_fold(run):
    main(["--run", str(run), "--device", "cpu", "--map", "max", "gradient", "--sanity", "1"])
    folder = run / "vis" / "truth"
    names = {"scores.csv", "table.csv", "truth.json", "truth.png", "group-max.png", "group-gradient.png"}
    assert {path.name for path in folder.iterdir()} == names
    rows = list(csv.DictReader((folder / "scores.csv").read_text().splitlines()))
    assert {(row["subject"], row["fold"]) for row in rows} == {("A", "0"), ("C", "0"), ("B", "1"), ("D", "1")}
    facts = json.loads((folder / "truth.json").read_text())
    assert facts["subjects"] == facts["with_tumour"] == 4
    assert {found["subject"] for found in facts["cascade"]} == {"A", "B"}


def test_folds_and_subjects_choose_who_is_scored(check):
    assert {subject for subject, _ in check("--folds", "1", "--sanity", "0")[0]} == {"B", "D"}
    assert {subject for subject, _ in check("--subjects", "1", "--sanity", "0")[0]} == {"A", "B"}


def test_map_options_have_an_effect(check):
    maps = ("max", "integrated", "occlusion")
    plain = check("--folds", "0", "--sanity", "0", "--window", "1", maps=maps)[0]
    for method, flags in (
        ("max", ("--block", "0")),
        ("integrated", ("--steps", "1")),
        ("occlusion", ("--window", "2")),
    ):
        changed = check("--folds", "0", "--sanity", "0", "--window", "1", *flags, maps=(method,))[0]
        scores = ("auc", "mass", "dice", "deletion")
        assert any(changed[s, method][score] != plain[s, method][score] for s in ("A", "C") for score in scores)


def test_batch_size_is_the_largest_batch(check, monkeypatch):
    sizes, forward = [], VolumeClassifier.forward
    monkeypatch.setattr(VolumeClassifier, "forward", lambda self, x: sizes.append(len(x)) or forward(self, x))
    check("--folds", "0", "--sanity", "0", "--batch_size", "3", maps=("occlusion",))
    assert max(sizes) == 3


def test_sanity_and_shuffled_labels_fill_their_scores(run, check):
    with_both, facts = check("--sanity", "1", "--shuffled", str(run.parent / "shuffled"))
    assert with_both["A", "max"]["random_auc"] != ""
    assert with_both["C", "max"]["random_auc"] == ""
    assert all(with_both[subject, "max"]["shuffled_auc"] != "" for subject in SUBJECTS)
    assert facts["shuffled"].endswith("shuffled")
    neither, facts = check("--sanity", "0")
    assert neither["A", "max"]["random_auc"] == neither["A", "max"]["shuffled_auc"] == ""
    assert facts["cascade"] == []


def test_stability_between_folds_and_seeds(run, check):
    """The run with another seed holds out the same subjects but has other weights."""
    seed = run.parent / "seed"
    shutil.copytree(run, seed)
    other = tiny_classifier()
    torch.nn.init.normal_(other.norm_f.weight)
    torch.save({"model": other.state_dict()}, seed / "fold_0" / "checkpoint-4.pth")
    rows, facts = check("--sanity", "0", "--stability", "1", "--seeds", str(seed))
    assert facts["seeds"] == [str(seed)]
    assert float(rows["A", "max"]["fold_similarity"]) == pytest.approx(1)  # the tiny folds differ in the head alone
    assert float(rows["A", "max"]["seed_similarity"]) < 0.999
    assert float(rows["B", "max"]["seed_similarity"]) == pytest.approx(1)
    assert rows["C", "max"]["fold_similarity"] == rows["C", "max"]["seed_similarity"] == ""
    rows, _ = check("--sanity", "0", "--stability", "0", "--seeds", str(seed))
    assert rows["A", "max"]["fold_similarity"] == rows["A", "max"]["seed_similarity"] == ""


def test_comparison_runs_must_fit_to_their_flags(run, check):
    with pytest.raises(ValueError, match=r"--shuffled .* was trained with --control none"):
        check("--shuffled", str(run))
    for wrong in (run, run.parent / "shuffled"):
        with pytest.raises(ValueError, match=r"--seeds .*: give another run of the same labels"):
            check("--seeds", str(wrong))


def test_other_data_are_used(run, check):
    root = run.parent / "other"
    found = check("--data", str(root), "--sanity", "0", "--folds", "0")[0]
    assert {subject for subject, _ in found} == {"A", "C"}
    with pytest.raises(ValueError, match="name their folder with --data"):
        check("--data", str(root / "nowhere"))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--folds", "2"), "--folds 2: the run has folds 0 to 1"),
        (("--block", "9"), "--block 9"),
    ],
)
def test_bad_values_name_the_flag(check, flags, words):
    with pytest.raises(ValueError, match=words):
        check(*flags)


def test_run_without_checkpoints(tmp_path, run):
    (tmp_path / "run").mkdir()
    for name in ("config.json", "folds.json"):
        (tmp_path / "run" / name).write_text((run / name).read_text())
    with pytest.raises(ValueError, match=r"no fold of .* has a checkpoint"):
        main(["--run", str(tmp_path / "run"), "--device", "cpu"])
