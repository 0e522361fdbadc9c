"""Held-out predictions of a cross-validation: the file predictions.csv, and arrays for the statistics.

predictions.csv has one row per subject and repeat: subject, fold, label (0 or 1), probability of class 1, repeat,
threshold, patient. The last three columns may be absent; they then are 0, 0.5 and the subject itself.
"""

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from util.files.atomic import atomic_write
from util.files.text_table import read_table
from util.run_folder import PREDICTIONS
from util.statistics.metrics import THRESHOLD
from util.statistics.scores import Scores, quoted

COLUMNS = ("subject", "fold", "label", "probability", "repeat", "threshold", "patient")
REQUIRED, OPTIONAL = COLUMNS[:4], COLUMNS[4:]


@dataclass(frozen=True, order=True)
class Prediction:
    """The held-out probability of class 1 of one subject. fold: counted through all repeats. patient: "" stands for the
    subject itself."""

    subject: str
    fold: int
    label: int
    probability: float
    repeat: int = 0
    threshold: float = THRESHOLD
    patient: str = ""


def write_predictions(path: Path, predictions: Sequence[Prediction]) -> None:
    """Write predictions.csv, sorted by subject and fold."""
    with atomic_write(path, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for p in sorted(predictions):
            numbers = {"probability": f"{p.probability:.8f}", "threshold": f"{p.threshold:.8g}"}
            writer.writerow({**asdict(p), **numbers}.values())


def read_predictions(path: Path) -> list[Prediction]:
    """Read predictions.csv. Raises ValueError with the file, the line and what is wrong with it."""
    if not path.is_file():
        raise ValueError(
            f"{path} is missing: no fold of that run has finished, or it is no fine-tuning run, or it was exported "
            "without predictions"
        )
    return [
        Prediction(
            row.text("subject"),
            row.integer("fold"),
            row.integer("label"),
            row.number("probability"),
            row.integer("repeat", 0),
            row.number("threshold", THRESHOLD),
            row.text("patient"),
        )
        for row in read_table(path, REQUIRED, OPTIONAL)
    ]


def held_out_predictions(run: Path) -> dict[str, Prediction]:
    """The held-out predictions of a run by subject; {} before a fold has finished."""
    path = run / PREDICTIONS
    return {p.subject: p for p in read_predictions(path)} if path.exists() else {}


def arrange(predictions: Sequence[Prediction], source: str = PREDICTIONS) -> Scores:
    """Predictions in any order as arrays. If some repeats are not finished, those with the most subjects are used.

    Raises ValueError, which starts with `source`: without predictions, for a subject that is twice in a repeat or has
    two labels or patients, for a label other than 0 or 1, and for a probability outside 0 to 1.
    """
    if not predictions:
        raise ValueError(f"{source} holds no predictions: no fold has finished")
    for p in predictions:
        if p.label not in (0, 1):
            raise ValueError(f'{source}: subject "{p.subject}" has label {p.label}; labels are 0 and 1')
        if not 0 <= p.probability <= 1:  # also if it is NaN
            raise ValueError(f'{source}: subject "{p.subject}" has probability {p.probability}, not within 0 and 1')
    twice = [key for key, count in Counter((p.subject, p.repeat) for p in predictions).items() if count > 1]
    if twice:
        raise ValueError(f"{source} lists {quoted([name for name, _ in twice])} twice in one repeat; keep one row")
    facts = {(p.subject, p.label, p.patient) for p in predictions}
    inconsistent = [name for name, count in Counter(name for name, _, _ in facts).items() if count > 1]
    if inconsistent:
        raise ValueError(f"{source} gives {quoted(inconsistent)} different labels or patients in different repeats")
    members: dict[int, dict[str, Prediction]] = {}
    for p in sorted(predictions):
        members.setdefault(p.repeat, {})[p.subject] = p
    fullest = max(members.values(), key=len)
    subjects = sorted(fullest)
    repeats = [members[repeat] for repeat in sorted(members) if members[repeat].keys() == fullest.keys()]
    return Scores(
        subjects,
        np.array([fullest[name].label for name in subjects]),
        np.array([fullest[name].patient or name for name in subjects]),
        np.array([[repeat[name].probability for name in subjects] for repeat in repeats]),
        np.array([[repeat[name].threshold for name in subjects] for repeat in repeats]),
        np.array([[repeat[name].fold for name in subjects] for repeat in repeats]),
    )
