"""Intervals, paired differences and verdicts of the table of map checks."""

import csv

import numpy as np
import pytest

from vis.map_checks.table import ScoreRow, mean_interval, summarise_scores, verdict, write_scores, write_summary

GOOD = (0.3, 0.1, 0.5)
BAD = (0.3, -0.1, 0.5)
CLEAN = {"auc": GOOD, "gain": {"flair": GOOD}, "random": GOOD, "random_similarity": (0.2, 0.1, 0.6), "shuffled": None,
         "fold_similarity": GOOD, "seed_similarity": None, "deletion_gain": BAD, "insertion_gain": GOOD,
         "largest_gap": 0.01}  # fmt: skip


def test_the_interval_has_its_nominal_coverage():
    generator = np.random.default_rng(0)
    covered = [low <= 2 <= high for _, low, high in (mean_interval(generator.normal(2, 1, 40)) for _ in range(200))]
    assert 0.88 <= np.mean(covered) <= 0.99


def test_interval_ignores_undefined_scores():
    assert mean_interval(np.array([1.0, np.nan, 1.0])) == (1.0, 1.0, 1.0)
    assert mean_interval(np.array([np.nan])) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, "passes"),
        ({"gain": {"flair": GOOD, "centre": BAD}}, "fails: tumour AUC not above centre"),
        ({"random": BAD}, "fails: random weights localise the tumour as well"),
        ({"random": None}, "passes"),
        ({"random_similarity": (0.6, 0.5, 0.7)}, "fails: random weights give a similar map"),
        ({"shuffled": BAD}, "fails: shuffled labels localise the tumour as well"),
        ({"insertion_gain": BAD}, "fails: deletion and insertion no better than random"),
        (
            {"random": BAD, "shuffled": BAD},
            "fails: random weights localise the tumour as well; shuffled labels localise the",
        ),
        ({"fold_similarity": BAD}, "fails: not reproducible between folds"),
        ({"seed_similarity": BAD}, "fails: not reproducible between seeds"),
        ({"largest_gap": None}, "passes"),
        ({"largest_gap": 0.34}, "fails: completeness gap 34%"),
        ({"auc": None}, "not decided"),
    ],
)
def test_the_verdict_names_the_failed_checks(change, words):
    assert verdict({**CLEAN, **change}).startswith(words)


def rows():
    found = []
    for index in range(12):
        name, noise = f"S{index:02d}", 0.01 * (index % 3)
        found += [
            ScoreRow(name, 0, 0, "random", 0.5, deletion=0.5, insertion=0.5),
            ScoreRow(name, 0, 0, "flair", 0.8 + noise, deletion=0.5, insertion=0.5),
            ScoreRow(name, 0, 0, "good", 0.9, deletion=0.3, insertion=0.7, random_auc=0.5, random_similarity=-0.1),
            ScoreRow(name, 0, 0, "bad", 0.8, deletion=0.3, insertion=0.7, random_auc=0.5, random_similarity=-0.9),
            ScoreRow(name, 0, 0, "flair, per voxel", 0.99),
        ]
    return found


def test_differences_are_paired_by_subject_and_only_maps_have_a_verdict():
    table = {entry["method"]: entry for entry in summarise_scores(rows(), ("flair",))}
    assert list(table) == ["random", "flair", "good", "bad", "flair, per voxel"]
    assert [entry["trivial"] for entry in table.values()] == [True, True, False, False, True]
    assert table["good"]["verdict"] == "passes"
    assert table["good"]["gain"]["flair"][0] == pytest.approx(0.09)
    assert table["good"]["deletion_gain"] == pytest.approx((0.2, 0.2, 0.2))
    assert table["bad"]["verdict"] == "fails: tumour AUC not above flair; random weights give a similar map"
    assert table["flair"]["verdict"] == ""
    assert table["flair"]["dice"] is None


def test_files_hold_every_row_and_no_nan(tmp_path):
    write_scores(tmp_path / "scores.csv", rows())
    write_summary(tmp_path / "table.csv", summarise_scores(rows(), ("flair",)))
    scores = list(csv.DictReader((tmp_path / "scores.csv").read_text().splitlines()))
    assert len(scores) == 60
    assert scores[2]["random_similarity"] == "-0.1"
    assert scores[2]["dice"] == ""
    table = list(csv.DictReader((tmp_path / "table.csv").read_text().splitlines()))
    assert [row["method"] for row in table][:3] == ["random", "flair", "good"]
    assert float(table[2]["auc minus flair low"]) > 0
    assert table[3]["verdict"].startswith("fails")
