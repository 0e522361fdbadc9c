"""Intervals, paired differences and verdicts of the truth table."""

import csv

import numpy as np
import pytest

from vis.map_checks.table import Scored, interval, summarise, verdict, write_scores, write_table

GOOD = (0.3, 0.1, 0.5)
BAD = (0.3, -0.1, 0.5)
CLEAN = {"auc": GOOD, "gain": {"flair": GOOD}, "random": GOOD, "random_similarity": (0.2, 0.1, 0.6), "shuffled": None,
         "fold_similarity": GOOD, "seed_similarity": None, "deletion_gain": BAD, "insertion_gain": GOOD,
         "largest_gap": 0.01}  # fmt: skip


def test_interval_covers_the_mean_of_its_population_about_as_often_as_it_says():
    generator = np.random.default_rng(0)
    covered = [low <= 2 <= high for _, low, high in (interval(generator.normal(2, 1, 40)) for _ in range(200))]
    assert 0.88 <= np.mean(covered) <= 0.99


def test_interval_ignores_undefined_scores():
    assert interval(np.array([1.0, np.nan, 1.0])) == (1.0, 1.0, 1.0)
    assert interval(np.array([np.nan])) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, "passes"),
        ({"gain": {"flair": GOOD, "centre": BAD}}, "fails: does not beat centre"),
        ({"random": BAD}, "fails: random weights find the tumour as well"),
        ({"random": None}, "passes"),
        ({"random_similarity": (0.6, 0.5, 0.7)}, "fails: random weights give a similar map"),
        ({"shuffled": BAD}, "fails: shuffled labels find the tumour as well"),
        ({"insertion_gain": BAD}, "fails: erasing by it is no better than at random"),
        ({"random": BAD, "shuffled": BAD}, "fails: random weights find the tumour as well; shuffled labels find the"),
        ({"fold_similarity": BAD}, "fails: unlike between folds"),
        ({"seed_similarity": BAD}, "fails: unlike between seeds"),
        ({"largest_gap": None}, "passes"),
        ({"largest_gap": 0.34}, "fails: parts miss 34% of what they divide"),
        ({"auc": None}, "not decided"),
    ],
)
def test_verdict_names_what_failed(change, words):
    assert verdict({**CLEAN, **change}).startswith(words)


def rows():
    found = []
    for index in range(12):
        name, noise = f"S{index:02d}", 0.01 * (index % 3)
        found += [
            Scored(name, 0, 0, "random", 0.5, deletion=0.5, insertion=0.5),
            Scored(name, 0, 0, "flair", 0.8 + noise, deletion=0.5, insertion=0.5),
            Scored(name, 0, 0, "good", 0.9, deletion=0.3, insertion=0.7, random_auc=0.5, random_similarity=-0.1),
            Scored(name, 0, 0, "bad", 0.8, deletion=0.3, insertion=0.7, random_auc=0.5, random_similarity=-0.9),
            Scored(name, 0, 0, "flair, voxel by voxel", 0.99),
        ]
    return found


def test_table_pairs_by_subject_and_judges_maps_only():
    table = {entry["method"]: entry for entry in summarise(rows(), ("flair",))}
    assert list(table) == ["random", "flair", "good", "bad", "flair, voxel by voxel"]
    assert [entry["trivial"] for entry in table.values()] == [True, True, False, False, True]
    assert table["good"]["verdict"] == "passes"
    assert table["good"]["gain"]["flair"][0] == pytest.approx(0.09)
    assert table["good"]["deletion_gain"] == pytest.approx((0.2, 0.2, 0.2))
    assert table["bad"]["verdict"] == "fails: does not beat flair; random weights give a similar map"
    assert table["flair"]["verdict"] == ""
    assert table["flair"]["dice"] is None


def test_files_hold_every_row_and_no_nan(tmp_path):
    write_scores(tmp_path / "scores.csv", rows())
    write_table(tmp_path / "table.csv", summarise(rows(), ("flair",)))
    scores = list(csv.DictReader((tmp_path / "scores.csv").read_text().splitlines()))
    assert len(scores) == 60
    assert scores[2]["random_similarity"] == "-0.1"
    assert scores[2]["dice"] == ""
    table = list(csv.DictReader((tmp_path / "table.csv").read_text().splitlines()))
    assert [row["method"] for row in table][:3] == ["random", "flair", "good"]
    assert float(table[2]["auc minus flair low"]) > 0
    assert table[3]["verdict"].startswith("fails")
