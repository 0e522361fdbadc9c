"""Is a scan unlike those of training? Distances between features of a scan and of held-out subjects, calibrated.

Held-out subjects serve as reference, not training ones: a network pulls its training subjects' features apart by class,
so that any new scan, however ordinary, would look far from them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NEIGHBOURS = 3
SMALLEST = 5  # held-out subjects of a fold below which distances say nothing
UNLIKE = 0.05  # how often an ordinary scan may be flagged


@dataclass(frozen=True)
class Reference:
    """Held-out subjects as one fold's model sees them.

    features: (S, E). distances: (S,) of each to the others. unit: their median, before division by it.
    """

    features: np.ndarray
    unit: float
    distances: np.ndarray

    def distance(self, features_E: np.ndarray) -> float:
        """Of a new scan to the held-out subjects: 1 is the median of a held-out subject to the others."""
        return _distance(features_E, self.features) / self.unit


@dataclass(frozen=True)
class Novelty:
    """distance: mean over folds, 1 is that of a median held-out subject. p: share of scans like those of training that
    lie as far away; n: held-out subjects that say so."""

    distance: float
    p: float
    n: int

    @property
    def unlike(self) -> bool:
        """As far away as few or, where so few are known that UNLIKE of them is less than one, farther than all."""
        return self.p <= max(UNLIKE, 1 / (self.n + 1))


def make_reference(features_SE: np.ndarray) -> Reference | None:
    """From the held-out subjects of a fold; None where they are too few.

    Each subject is measured by the others alone, as a new scan is: had it a part in their mean and deviation, it would
    lie nearer than any new scan can, the more so the fewer they are.
    """
    if len(features_SE) < SMALLEST:
        return None
    rows = np.arange(len(features_SE))
    distances = np.array([_distance(features_SE[row], features_SE[rows != row]) for row in rows])
    unit = max(float(np.median(distances)), 1e-12)
    return Reference(features_SE, unit, distances / unit)


def judge(references: Sequence[Reference | None], features: Sequence[np.ndarray]) -> Novelty | None:
    """How unlike training a scan is, from its features (E,) in each fold's model and that fold's reference; None where
    no fold has one.

    p counts held-out subjects of all folds at least as far away, itself included, as in conformal prediction (Vovk et
    al. 2005): an ordinary scan falls below UNLIKE at most that often, for a single fold's distance; the mean over folds
    varies less, which makes a false alarm rarer. p is 1 / (n + 1) at least.
    """
    pairs = [(reference, found) for reference, found in zip(references, features, strict=True) if reference is not None]
    if not pairs:
        return None
    distance = float(np.mean([reference.distance(found) for reference, found in pairs]))
    known = np.concatenate([reference.distances for reference, _ in pairs])
    return Novelty(distance, float((1 + (known >= distance).sum()) / (len(known) + 1)), len(known))


def _distance(features_E: np.ndarray, others_SE: np.ndarray) -> float:
    """Mean Euclidean distance to the NEIGHBOURS nearest of the others, each feature in units of their deviation."""
    deviation_E = others_SE.std(0)
    deviation_E = np.maximum(deviation_E, 0.01 * deviation_E.mean() + 1e-12)  # one that never varies must not decide
    distances_S = np.linalg.norm((others_SE - features_E) / deviation_E, axis=1)
    return float(np.sort(distances_S)[:NEIGHBOURS].mean())
