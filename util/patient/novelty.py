"""Novelty: how much a scan differs from the training data, by calibrated distances of features.

The reference are held-out subjects. A network separates the features of its training subjects by class, so that every
new scan would be far from those.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NEIGHBOURS = 3
SMALLEST = 5  # held-out subjects that a fold needs for distances
UNLIKE = 0.05  # rate at which ordinary scans may be flagged


@dataclass(frozen=True)
class ReferenceFeatures:
    """The features of one fold's held-out subjects, and their distances.

    features: (S, E). unit: the median distance of a subject to the others. distances: (S,), in this unit.
    """

    features: np.ndarray
    unit: float
    distances: np.ndarray

    def distance(self, features_E: np.ndarray) -> float:
        """The distance of a new scan to the held-out subjects; 1 is the median distance of those to each other."""
        return _distance(features_E, self.features) / self.unit


@dataclass(frozen=True)
class Novelty:
    """How far a scan lies from the held-out subjects.

    distance: mean over folds; 1 is the median of held-out subjects. p: fraction of ordinary scans that are at least
    as far away. n: number of held-out subjects that p is estimated from.
    """

    distance: float
    p: float
    n: int

    @property
    def unlike(self) -> bool:
        """Whether the scan is flagged: p is at most UNLIKE or, with too few subjects for that, the smallest possible
        p."""
        return self.p <= max(UNLIKE, 1 / (self.n + 1))


def make_reference(features_SE: np.ndarray) -> ReferenceFeatures | None:
    """The reference of a fold from the features of its held-out subjects; None if there are too few.

    The distance of each subject is computed from the others alone, as for a new scan. If it contributed to their
    standard deviation, its distance would be too small.
    """
    if len(features_SE) < SMALLEST:
        return None
    rows = np.arange(len(features_SE))
    distances = np.array([_distance(features_SE[row], features_SE[rows != row]) for row in rows])
    unit = max(float(np.median(distances)), 1e-12)
    return ReferenceFeatures(features_SE, unit, distances / unit)


def novelty_of(references: Sequence[ReferenceFeatures | None], features: Sequence[np.ndarray]) -> Novelty | None:
    """The novelty of a scan from its features (E,) in each fold's model and the fold's reference; None without any
    reference.

    p counts the held-out subjects of all folds that are at least as far away, and the scan itself, as in conformal
    prediction (Vovk et al. 2005). With one fold, an ordinary scan has p <= UNLIKE at most at that rate; the mean over
    folds varies less, so that false alarms are rarer. p is at least 1 / (n + 1).
    """
    pairs = [(reference, own) for reference, own in zip(references, features, strict=True) if reference is not None]
    if not pairs:
        return None
    distance = float(np.mean([reference.distance(own) for reference, own in pairs]))
    known = np.concatenate([reference.distances for reference, _ in pairs])
    return Novelty(distance, float((1 + (known >= distance).sum()) / (len(known) + 1)), len(known))


def _distance(features_E: np.ndarray, others_SE: np.ndarray) -> float:
    """The mean Euclidean distance to the NEIGHBOURS nearest others, with features divided by their standard
    deviation."""
    deviation_E = others_SE.std(0)
    deviation_E = np.maximum(deviation_E, 0.01 * deviation_E.mean() + 1e-12)  # constant features must not dominate
    distances_S = np.linalg.norm((others_SE - features_E) / deviation_E, axis=1)
    return float(np.sort(distances_S)[:NEIGHBOURS].mean())
