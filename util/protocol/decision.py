"""How a fold comes to its probabilities and calls: temperature and threshold fitted on its validation part, which
weights, which views of a volume. Written beside its predictions, read by whoever uses its weights later."""

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

COLDEST, HOTTEST = 0.05, 20.0  # validation parts that are separated perfectly would make it 0
CLIP = 1e-7  # float32 probabilities reach 0 and 1


@dataclass(frozen=True)
class Decision:
    """temperature: divides the log-odds of the probability averaged over the views that `tta` names. threshold: of the
    probability after that. select: whose weights these belong to."""

    temperature: float = 1.0
    threshold: float = THRESHOLD
    select: Select = "last"
    tta: Views = "none"

    def save(self, fold: Path) -> None:
        """FOLD/decision.json."""
        with atomic_write(fold / DECISION, "w") as file:
            json.dump(asdict(self), file, indent=2)


def read_decision(fold: Path, options: Mapping[str, Any]) -> Decision:
    """What a fold's folder says; where it says nothing, what the run's `options` say without being fitted.

    ValueError where the file cannot be used, and where it is missing though the options ask for something fitted.
    """
    path = fold / DECISION
    if path.exists():
        return _parsed(path)
    fitted = {"calibrate": "temperature", "threshold": "val"}
    if asked := [f"--{name} {value}" for name, value in fitted.items() if options.get(name) == value]:
        raise ValueError(
            f"{path} is missing, and the run was trained with {' '.join(asked)}: let the fold finish, or repeat its "
            "main_cr_finetune.py command with --eval, which fits it again"
        )
    return Decision(select=options.get("select", "last"), tta=options.get("tta", "none"))


def _parsed(path: Path) -> Decision:
    try:
        found = Decision(**json.loads(path.read_text(encoding="utf-8")))
        if problem := _problem(found):
            raise ValueError(problem)
    except (ValueError, TypeError) as error:
        fix = "score the run again with main_cr_finetune.py --eval"
        raise ValueError(f"{path} cannot be used ({error}): {fix}") from error
    return found


def _problem(found: Decision) -> str:
    """Empty where there is none. TypeError for what is no number."""
    if not (math.isfinite(found.temperature) and found.temperature > 0):
        return f"temperature {found.temperature} must be above 0"
    if not 0 <= found.threshold <= 1:
        return f"threshold {found.threshold} must lie between 0 and 1"
    for name, known in (("select", get_args(Select)), ("tta", get_args(Views))):
        if getattr(found, name) not in known:
            return f"{name} {getattr(found, name)} is none of {', '.join(known)}"
    return ""


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

    def slope(coldness: float) -> float:
        """Of the mean log-loss, which is convex in 1 / temperature; an increasing function."""
        return -float((signed_S * expit(-coldness * signed_S)).mean())

    hot, cold = 1 / HOTTEST, 1 / COLDEST
    if not signed_S.any():  # probabilities of 1/2 have none
        return 1.0
    if slope(hot) >= 0:
        return HOTTEST
    return COLDEST if slope(cold) <= 0 else 1 / float(brentq(slope, hot, cold))  # pyright: ignore[reportArgumentType]


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
