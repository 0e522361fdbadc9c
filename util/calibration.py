"""Decisions fitted on the validation part of a fold: a temperature for its probabilities, a threshold for its calls."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from util.metrics import THRESHOLD

COLDEST, HOTTEST = 0.05, 20.0  # validation parts that are separated perfectly would make it 0
CLIP = 1e-7  # float32 probabilities reach 0 and 1


@dataclass(frozen=True)
class Decision:
    """temperature: divides the log-odds. threshold: of the probability after that."""

    temperature: float = 1.0
    threshold: float = THRESHOLD


def fit_decision(
    labels_S: np.ndarray, probabilities_S: np.ndarray, *, fit_temperature: bool, fit_threshold: bool
) -> Decision:
    """What the labels and probabilities of a validation part suggest; defaults for what is not fitted.

    Temperature: smallest negative log-likelihood (Guo et al. 2017). Threshold: largest balanced accuracy, midway
    between neighbouring probabilities, the one nearest 0.5 of equals.
    """
    temperature = _temperature(labels_S, probabilities_S) if fit_temperature else 1.0
    scaled_S = scaled(probabilities_S, temperature)
    return Decision(temperature, _threshold(labels_S, scaled_S) if fit_threshold else THRESHOLD)


def scaled(probabilities_S: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities whose log-odds are divided by `temperature`; their order, and so the AUC of a fold, stays."""
    if temperature == 1:
        return np.asarray(probabilities_S, dtype=float)
    return 1 / (1 + np.exp(-_log_odds(probabilities_S) / temperature))


def _log_odds(probabilities_S: np.ndarray) -> np.ndarray:
    clipped_S = np.clip(np.asarray(probabilities_S, dtype=float), CLIP, 1 - CLIP)
    return np.log(clipped_S / (1 - clipped_S))


def _temperature(labels_S: np.ndarray, probabilities_S: np.ndarray) -> float:
    signed_S = _log_odds(probabilities_S) * (2 * np.asarray(labels_S) - 1)

    def loss(log_temperature: float) -> float:
        return float(np.logaddexp(0, -signed_S / np.exp(log_temperature)).mean())

    bounds = (np.log(COLDEST), np.log(HOTTEST))
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))  # pyright: ignore[reportAttributeAccessIssue]


def _threshold(labels_S: np.ndarray, probabilities_S: np.ndarray) -> float:
    labels_S = np.asarray(labels_S)
    if len(set(labels_S.tolist())) < 2:
        return THRESHOLD
    levels = np.unique(probabilities_S)
    candidates_T = np.unique([*(levels[1:] + levels[:-1]) / 2, THRESHOLD])
    called_TS = probabilities_S[None, :] >= candidates_T[:, None]
    score_T = called_TS[:, labels_S == 1].mean(1) + (~called_TS[:, labels_S == 0]).mean(1)
    best_T = candidates_T[score_T >= score_T.max() - 1e-12]
    return float(best_T[np.argmin(np.abs(best_T - THRESHOLD))])
