"""Scores: held-out predictions as arrays, the input of the statistics."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

QUOTED = 3  # names that an error quotes


@dataclass(frozen=True)
class Scores:
    """The held-out predictions of R repeats of a cross-validation over S subjects, in sorted order.

    Every subject has a label (0 or 1) and a patient, and in every repeat a probability of class 1, a threshold and a
    fold.
    """

    subjects: list[str]
    labels_S: np.ndarray
    patients_S: np.ndarray
    probabilities_RS: np.ndarray
    thresholds_RS: np.ndarray
    folds_RS: np.ndarray

    @property
    def decisions_S(self) -> np.ndarray:
        """(S,) bool: whether the predicted class is 1, by the means of probability and threshold over repeats."""
        return self.probabilities_RS.mean(0) >= self.thresholds_RS.mean(0)

    @property
    def is_independent(self) -> bool:
        """Whether every patient has one subject only."""
        return len(set(self.patients_S.tolist())) == len(self.subjects)

    def restricted(self, wanted: Sequence[str]) -> "Scores":
        """The scores of some of the subjects."""
        kept = np.isin(self.subjects, sorted(wanted))
        return Scores(
            [name for name, keep in zip(self.subjects, kept) if keep],
            self.labels_S[kept],
            self.patients_S[kept],
            self.probabilities_RS[:, kept],
            self.thresholds_RS[:, kept],
            self.folds_RS[:, kept],
        )


def check_paired(a: Scores, b: Scores, names: tuple[str, str]) -> None:
    """Raise ValueError if some subjects are in one of two runs only, or have different labels in them."""
    for one, other, name in ((a, b, names[0]), (b, a, names[1])):
        if only := sorted(set(one.subjects) - set(other.subjects)):
            raise ValueError(
                f"{len(only)} subject(s) are only in {name}: {quoted(only)}; compare runs of the same subjects, "
                "or pass --common to use those that all runs share"
            )
    if differ := [name for name, x, y in zip(a.subjects, a.labels_S, b.labels_S) if x != y]:
        raise ValueError(f"{names[0]} and {names[1]} disagree on the label of {quoted(differ)}: not the same task")


def quoted(names: Sequence[str]) -> str:
    """The first names in quotation marks, and how many more there are."""
    more = f" and {len(names) - QUOTED} more" if len(names) > QUOTED else ""
    return ", ".join(f'"{name}"' for name in names[:QUOTED]) + more
