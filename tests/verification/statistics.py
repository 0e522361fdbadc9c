"""Comparison of AUC, standard errors, tests and intervals with R: pROC, and base R for binomial tests and Holm.

Problems differ in size, balance, separation, ties and the correlation of the two runs that are compared.
"""

import csv
import itertools
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from tests.verification.options import Case, Options
from tests.verification.peers import named
from tests.verification.tally import Skipped, Tally
from util.evaluation.predictions import Prediction, arrange
from util.statistics.comparisons import holm, mcnemar
from util.statistics.curves import reliability
from util.statistics.delong import delong_difference, delong_interval
from util.statistics.metrics import classification_metrics
from util.statistics.scores import Scores

SCRIPT = Path(__file__).with_suffix(".R")
GRID = {
    "classes": [(6, 9), (12, 40), (33, 33), (60, 150), (250, 100)],
    "separation": [0.0, 0.7, 1.5],
    "ties": [False, True],
    "correlation": [0.0, 0.8],
    "seed": list(range(6)),
}
TOLERANCE = 1e-7


def run(options: Options) -> Tally:
    if shutil.which("Rscript") is None or _rscript("-e", "library(pROC)").returncode:
        raise Skipped("R with its package pROC is not installed (Debian: apt install r-base-core r-cran-proc)")
    tally = Tally()
    cases = options.chosen(GRID)
    problems = [_problem(case) for case in cases]
    theirs = _by_r(problems)
    for number, (case, (a, b)) in enumerate(zip(cases, problems), start=1):
        ours = _ours(a, b)
        if ours["error of the difference"] == 0:  # pROC gives a point, ours an interval for few patients
            del ours["low end of the difference"], ours["high end of the difference"]
        for name, value in ours.items():
            tally.near(f"{name}, {named(case)}", {name: (value, theirs[number, name].pop())}, atol=TOLERANCE)
    family = problems[0][0].probabilities_RS[0]
    tally.near("Holm", {"holm": (holm(family.tolist()), theirs[0, "holm"])}, atol=TOLERANCE)
    tally.notes.append(f"{len(problems)} problems, {tally.total} statistics of them.")
    return tally


def _problem(case: Case) -> tuple[Scores, Scores]:
    """The scores of two runs on the same subjects."""
    generator = np.random.default_rng([case["seed"], *case["classes"]])
    labels = np.repeat([1, 0], case["classes"])
    shared, *own = generator.normal(size=(3, len(labels)))
    runs = []
    for noise in own:
        mixed = case["correlation"] * shared + np.sqrt(1 - case["correlation"] ** 2) * noise
        probabilities = 1 / (1 + np.exp(-(mixed + case["separation"] * (labels - 0.5))))
        probabilities = np.round(probabilities, 1) if case["ties"] else probabilities
        runs.append(
            arrange([Prediction(f"{i:05}", 0, int(y), p) for i, (y, p) in enumerate(zip(labels, probabilities))])
        )
    return runs[0], runs[1]


def _ours(a: Scores, b: Scores) -> dict[str, float]:
    area, difference = delong_interval(a), delong_difference(a, b)
    metrics = classification_metrics(a.labels_S, a.probabilities_RS[0])
    test = mcnemar(a.decisions_S == a.labels_S, b.decisions_S == b.labels_S)
    share = reliability(a, groups=1)[0]
    return {
        "auc": area.auc,
        "standard error": area.error,
        "difference": difference.difference,
        "error of the difference": difference.error,
        "p of the difference": difference.p,
        "low end of the difference": difference.low,
        "high end of the difference": difference.high,
        "p of McNemar's exact test": test.p,
        **{name: metrics[name] for name in ("sensitivity", "specificity", "accuracy", "brier")},
        "low end of a share": share.low,
        "high end of a share": share.high,
    }


def _by_r(problems: list[tuple[Scores, Scores]]) -> dict[tuple[int, str], list[float]]:
    """Values by problem, from 1, and name. Problem 0 holds the values that belong to all."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "problems.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["problem", "label", "a", "b"])
            for number, (a, b) in enumerate(problems, start=1):
                for row in zip(itertools.repeat(number), a.labels_S, a.probabilities_RS[0], b.probabilities_RS[0]):
                    writer.writerow(row)
        done = _rscript(str(SCRIPT), str(path))
    if done.returncode:
        raise RuntimeError(f"{SCRIPT.name} failed: {done.stderr}")
    found: dict[tuple[int, str], list[float]] = {}
    for number, name, value in csv.reader(done.stdout.splitlines()):
        found.setdefault((int(number), name), []).append(float(value.replace("NA", "nan")))
    return found


def _rscript(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["Rscript", *words], capture_output=True, text=True, check=False)
