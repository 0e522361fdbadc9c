"""Held-out predictions as checked arrays, the form in which the statistics take them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from util.results import Prediction

SHOWN = 3  # names that an error quotes


@dataclass(frozen=True)
class Scores:
    """R repeats of a cross-validation over S subjects in sorted order. Of each subject: label 0 or 1, the patient it
    belongs to, and per repeat the probability of class 1, the threshold of the decision and the fold."""

    subjects: list[str]
    labels_S: np.ndarray
    patients_S: np.ndarray
    probabilities_RS: np.ndarray
    thresholds_RS: np.ndarray
    folds_RS: np.ndarray

    @property
    def decisions_S(self) -> np.ndarray:
        """(S,) bool, class 1: by the mean over repeats of probability and threshold."""
        return self.probabilities_RS.mean(0) >= self.thresholds_RS.mean(0)

    @property
    def is_independent(self) -> bool:
        """No patient has two subjects."""
        return len(set(self.patients_S.tolist())) == len(self.subjects)

    def restricted(self, wanted: Sequence[str]) -> "Scores":
        """The same for some of the subjects."""
        kept = np.isin(self.subjects, sorted(wanted))
        return Scores(
            [name for name, keep in zip(self.subjects, kept) if keep],
            self.labels_S[kept],
            self.patients_S[kept],
            self.probabilities_RS[:, kept],
            self.thresholds_RS[:, kept],
            self.folds_RS[:, kept],
        )


def arrange(predictions: Sequence[Prediction], source: str = "predictions.csv") -> Scores:
    """Predictions in any order -> arrays. Of a run whose repeats are not all finished, those with the most subjects.

    ValueError, beginning with `source`, for no predictions, a subject twice in a repeat or with two labels or patients,
    a label other than 0 or 1, a probability that is not a number from 0 to 1.
    """
    if not predictions:
        raise ValueError(f"{source} holds no predictions: no fold has finished")
    for p in predictions:
        if p.label not in (0, 1):
            raise ValueError(f'{source}: subject "{p.subject}" has label {p.label}; labels are 0 and 1')
        if not 0 <= p.probability <= 1:  # NaN is neither
            raise ValueError(f'{source}: subject "{p.subject}" has probability {p.probability}, not within 0 and 1')
    twice = [key for key, count in Counter((p.subject, p.repeat) for p in predictions).items() if count > 1]
    if twice:
        raise ValueError(f"{source} lists {_quoted([name for name, _ in twice])} twice in one repeat; keep one row")
    facts = {(p.subject, p.label, p.patient) for p in predictions}
    torn = [name for name, count in Counter(name for name, _, _ in facts).items() if count > 1]
    if torn:
        raise ValueError(f"{source} gives {_quoted(torn)} different labels or patients in different repeats")
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


def check_paired(a: Scores, b: Scores, names: tuple[str, str]) -> None:
    """ValueError that says which subjects are in only one of two runs, or have different labels in them."""
    for one, other, name in ((a, b, names[0]), (b, a, names[1])):
        if only := sorted(set(one.subjects) - set(other.subjects)):
            raise ValueError(
                f"{len(only)} subject(s) are only in {name}: {_quoted(only)}; compare runs of the same subjects, "
                "or pass --common to use those that all runs share"
            )
    if differ := [name for name, x, y in zip(a.subjects, a.labels_S, b.labels_S) if x != y]:
        raise ValueError(f"{names[0]} and {names[1]} disagree on the label of {_quoted(differ)}: not the same task")


def _quoted(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(f'"{name}"' for name in names[:SHOWN]) + more
