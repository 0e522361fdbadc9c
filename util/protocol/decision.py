"""The decision of a fold (decision.json): how logits become probabilities and predicted classes.

It holds the temperature and threshold that were fitted on the validation part, which weights are used, and which
test-time views.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit

from util.files.atomic import atomic_write
from util.protocol.best_epoch import Select
from util.protocol.tta import Views
from util.run_folder import DECISION
from util.statistics.metrics import THRESHOLD

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0  # without a bound, perfect separation would make it 0
CLIP = 1e-7  # because probabilities in float32 reach 0 and 1


@dataclass(frozen=True)
class Decision:
    """How a fold turns logits into a probability and a predicted class.

    temperature: divisor of the log-odds of the probability, which is a mean over the views that `tta` selects.
    threshold: smallest calibrated probability at which the predicted class is 1. select: the weights that temperature
    and threshold belong to.
    """

    temperature: float = 1.0
    threshold: float = THRESHOLD
    select: Select = "last"
    tta: Views = "none"

    def save(self, fold: Path) -> None:
        """Write FOLD/decision.json."""
        with atomic_write(fold / DECISION, "w") as file:
            json.dump(asdict(self), file, indent=2)


def read_decision(fold: Path, options: Mapping[str, Any]) -> Decision:
    """The decision of a fold. If its folder has no decision.json, it follows from the run's `options`.

    Raises ValueError if the file is damaged, and if it is missing although the options ask for a fitted value.
    """
    path = fold / DECISION
    if path.exists():
        return _parsed(path)
    fitted = {"calibrate": "temperature", "threshold": "val"}
    if missing := [f"--{name} {value}" for name, value in fitted.items() if options.get(name) == value]:
        raise ValueError(
            f"{path} is missing, and the run was trained with {' '.join(missing)}: let the fold finish, or repeat its "
            "main_cr_finetune.py command with --eval, which fits it again"
        )
    return Decision(select=options.get("select", "last"), tta=options.get("tta", "none"))


def _parsed(path: Path) -> Decision:
    try:
        decision = Decision(**json.loads(path.read_text(encoding="utf-8")))
        _check(decision)
    except (ValueError, TypeError) as error:
        fix = "evaluate the run again with main_cr_finetune.py --eval"
        raise ValueError(f"{path} cannot be used ({error}): {fix}") from error
    return decision


def _check(decision: Decision) -> None:
    """Raise ValueError, or TypeError for a value that is no number, if a field has an impossible value."""
    if not (math.isfinite(decision.temperature) and decision.temperature > 0):
        raise ValueError(f"temperature {decision.temperature} must be above 0")
    if not 0 <= decision.threshold <= 1:
        raise ValueError(f"threshold {decision.threshold} must lie between 0 and 1")
    for name, known in (("select", get_args(Select)), ("tta", get_args(Views))):
        if getattr(decision, name) not in known:
            raise ValueError(f"{name} {getattr(decision, name)} is not one of {', '.join(known)}")


def fit_decision(
    labels_S: np.ndarray, probabilities_S: np.ndarray, *, fit_temperature: bool, fit_threshold: bool
) -> Decision:
    """Fit temperature and threshold on the labels and probabilities of a validation part.

    The temperature minimises the negative log-likelihood (Guo et al. 2017). The threshold maximises the balanced
    accuracy; candidates lie midway between neighbouring probabilities, and of equals the one nearest to 0.5 is used.
    """
    temperature = _temperature(labels_S, probabilities_S) if fit_temperature else 1.0
    calibrated_S = calibrated(probabilities_S, temperature)
    return Decision(temperature, _threshold(labels_S, calibrated_S) if fit_threshold else THRESHOLD)


def calibrated(probabilities_S: np.ndarray, temperature: float) -> np.ndarray:
    """The probabilities with their log-odds divided by `temperature`. Their order, and thus a fold's AUC, is kept."""
    if temperature == 1:
        return np.asarray(probabilities_S, dtype=float)
    return 1 / (1 + np.exp(-_log_odds(probabilities_S) / temperature))


def _log_odds(probabilities_S: np.ndarray) -> np.ndarray:
    clipped_S = np.clip(np.asarray(probabilities_S, dtype=float), CLIP, 1 - CLIP)
    return np.log(clipped_S / (1 - clipped_S))


def _temperature(labels_S: np.ndarray, probabilities_S: np.ndarray) -> float:
    signed_S = _log_odds(probabilities_S) * (2 * np.asarray(labels_S) - 1)

    def slope(inverse: float) -> float:
        """The derivative of the mean log-loss, which is convex in 1 / temperature, by 1 / temperature."""
        return -float((signed_S * expit(-inverse * signed_S)).mean())

    low, high = 1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE
    if not signed_S.any():  # all probabilities are 1/2, and the loss does not depend on the temperature
        return 1.0
    if slope(low) >= 0:
        return MAX_TEMPERATURE
    if slope(high) <= 0:
        return MIN_TEMPERATURE
    return 1 / float(brentq(slope, low, high))  # pyright: ignore[reportArgumentType]


def _threshold(labels_S: np.ndarray, probabilities_S: np.ndarray) -> float:
    labels_S = np.asarray(labels_S)
    if len(set(labels_S.tolist())) < 2:
        return THRESHOLD
    levels = np.unique(probabilities_S)
    candidates_T = np.unique([*(levels[1:] + levels[:-1]) / 2, THRESHOLD])
    predicted_TS = probabilities_S[None, :] >= candidates_T[:, None]
    score_T = predicted_TS[:, labels_S == 1].mean(1) + (~predicted_TS[:, labels_S == 0]).mean(1)
    best_T = candidates_T[score_T >= score_T.max() - 1e-12]
    return float(best_T[np.argmin(np.abs(best_T - THRESHOLD))])
