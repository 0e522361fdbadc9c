"""The values of ROC and reliability curves with their uncertainty, for charts."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from util.statistics.bootstrap import CONFIDENCE, stratified_weights
from util.statistics.scores import Scores

GRID = np.linspace(0, 1, 101)
RESAMPLES = 500  # for the edges of a band, which are drawn but not reported


@dataclass(frozen=True)
class Band:
    """Values over GRID, and their middle 95% over bootstrap resamples of patients."""

    values_G: np.ndarray
    low_G: np.ndarray
    high_G: np.ndarray


def roc_band(scores: Scores, *, resamples: int = RESAMPLES, seed: int = 0) -> Band:
    """Sensitivity at every false-positive rate of GRID, mean over repeats. Both classes must be present."""
    weights_BS = stratified_weights(scores, resamples, seed)
    ones_1S = np.ones((1, len(scores.subjects)))
    curves_BG = np.mean([_sensitivities(scores.labels_S, one_S, weights_BS) for one_S in scores.probabilities_RS], 0)
    values_G = np.mean([_sensitivities(scores.labels_S, one_S, ones_1S)[0] for one_S in scores.probabilities_RS], 0)
    tail = 50 * (1 - CONFIDENCE)
    return Band(values_G, *np.percentile(curves_BG, [tail, 100 - tail], axis=0))


@dataclass(frozen=True)
class Reliability:
    """A group of subjects with similar probabilities: the mean probability, the observed fraction of class 1 with its
    exact 95% interval (Clopper & Pearson), and the number of subjects."""

    predicted: float
    observed: float
    low: float
    high: float
    count: int


def reliability(scores: Scores, groups: int = 5) -> list[Reliability]:
    """Groups of (nearly) equal size in the order of the subjects' probabilities, which are means over repeats."""
    probabilities_S = scores.probabilities_RS.mean(0)
    order = np.argsort(probabilities_S, kind="stable")
    points = []
    for members in np.array_split(order, min(groups, len(order))):
        positives, count = int(scores.labels_S[members].sum()), len(members)
        low, high = binomtest(positives, count).proportion_ci(CONFIDENCE)
        predicted = float(probabilities_S[members].mean())
        points.append(Reliability(predicted, positives / count, float(low), float(high), count))
    return points


def _sensitivities(labels_S: np.ndarray, probabilities_S: np.ndarray, weights_BS: np.ndarray) -> np.ndarray:
    """(B, G): the ROC curve of every weighted sample over GRID, linear between thresholds."""
    order = np.argsort(-probabilities_S, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(probabilities_S[order]) != 0, True))
    is_positive_S = labels_S[order] == 1
    rates = []
    for kind_S in (is_positive_S, ~is_positive_S):
        counts_BT = np.cumsum(weights_BS[:, order] * kind_S, axis=1)[:, ends]
        rates.append(np.pad(counts_BT / counts_BT[:, -1:], ((0, 0), (1, 0))))
    return np.stack([np.interp(GRID, false_T, true_T) for true_T, false_T in zip(*rates)])
